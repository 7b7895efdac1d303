module tools.local/metrics-server

go 1.27.3

require sigs.k8s.io/metrics-server v0.9.0 // indirect

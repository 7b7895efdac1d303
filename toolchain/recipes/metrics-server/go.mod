module tools.local/metrics-server

go 1.27.3

require sigs.k8s.io/metrics-server v0.9.0 // indirect

// The version that metrics-server asks for writes its API's description in a form that no API server takes
// (with Go 1.27 embedded structs are not inlined); this is the one that kube-apiserver 1.36.1 is made with.
replace k8s.io/kube-openapi => k8s.io/kube-openapi v0.0.0-20260317180543-43fb72c5454a

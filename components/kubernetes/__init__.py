"""From a Service to Kubernetes manifests. Pure: no resource is declared here."""

"""What the kubernetes target is made of: from a Service to manifests. Pure: no resource is declared here."""

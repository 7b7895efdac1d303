"""How one capability of the platform is provisioned, whatever the target."""

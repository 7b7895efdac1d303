"""The venue plug-ins that come with the runtime."""

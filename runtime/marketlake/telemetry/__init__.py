"""OpenTelemetry set-up: traces, metrics and logs that carry the trace's id, secrets redacted."""

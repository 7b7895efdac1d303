"""CloudEvents on Kafka, with W3C trace context in the headers."""

"""Kubernetes: manifests written from the settings of hosts, and manifests judged for their GPUs."""

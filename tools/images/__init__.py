"""The container images: what each holds, their locks, their bills of materials and the provenance of a release."""

"""Manifests and the corpora that are built from nothing; importing it loads nothing heavy."""

from trimodal.data.manifest import Row, read_manifest, read_manifests

__all__ = ["Row", "read_manifest", "read_manifests"]

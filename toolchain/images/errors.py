"""Errors of images; each message says what to do next."""

from toolchain.errors import ToolchainError


class ImageError(ToolchainError):
    """An image cannot be built, loaded or pushed."""


class ImageMissingError(ImageError):
    """An image was not built yet, or not from what is pinned now."""


class ImageReferenceError(ImageError):
    """A reference does not say, by its digest, which image is meant."""


class UnknownImageError(ImageError):
    """There is no recipe for an image of that name."""

"""The images of everything that runs in a cluster: reproducible, without rights, and from the pinned tools."""

from toolchain.images.image import RUNTIME, Image, ImageMissingError, VendorImage, locate

__all__ = ["RUNTIME", "Image", "ImageMissingError", "VendorImage", "locate"]

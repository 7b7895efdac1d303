"""Container images of the programs of the bill of materials: built here, without a container engine or registry."""

from toolchain.images.errors import ImageError, ImageMissingError, ImageReferenceError, UnknownImageError
from toolchain.images.image import Image, VendorImage, locate

__all__ = [
    "Image",
    "ImageError",
    "ImageMissingError",
    "ImageReferenceError",
    "UnknownImageError",
    "VendorImage",
    "locate",
]

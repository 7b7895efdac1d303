"""The node's installed programs and built images."""

from pathlib import Path

from playbooks.node import IMAGES, NodeImage
from toolchain.cache import locate as locate_tool
from toolchain.images import locate as locate_image

_TOOLS = ("kubernetes", "etcd", "kube-network-policies", "kubectl")


def node_programs() -> dict[str, Path]:
    """The programs that run on the node itself.

    Raises:
        ToolMissingError: one is not installed.
    """
    return {program: path for name in _TOOLS for program, path in locate_tool(name).executables.items()}


def node_images() -> dict[str, NodeImage]:
    """The images of the cluster's own pods.

    Raises:
        ImageMissingError: one is not built.
    """
    found = {}
    for name in IMAGES:
        image = locate_image(name)
        found[name] = NodeImage(image.reference, image.executables.get(name, ""))
    return found

"""The server of transformers with the micro model, on a free port of the loopback interface, until stdin ends.

    python tests/serve_micro.py SEEN

Prints its port, and appends the digest of every picture that reaches the processor, decoded as it does, to the file
SEEN, a line a request.
"""

import sys
import time
from typing import Any

import numpy as np
from transformers.cli.serve import Serve
from transformers.image_utils import load_image

from agents.micro import MICRO_BASE, ImageProcessor  # importing it tells transformers of our processor
from pixel_env.trajectory import digest

process = ImageProcessor.__call__


def pictures(images: Any) -> list[Any]:
    """The pictures of lists in lists."""
    return [one for part in images for one in pictures(part)] if isinstance(images, list | tuple) else [images]


def note_and_process(self: ImageProcessor, images: Any = None, *args: Any, **kwargs: Any) -> Any:
    with open(sys.argv[1], "a", encoding="ascii") as file:
        file.write(" ".join(digest(np.asarray(load_image(image))) for image in pictures(images)) + "\n")
    return process(self, images, *args, **kwargs)


if __name__ == "__main__":
    ImageProcessor.__call__ = note_and_process  # type: ignore[method-assign]
    serve = Serve(str(MICRO_BASE), device="cpu", dtype="float32", host="127.0.0.1", port=0, non_blocking=True)
    while not serve.server.started:
        time.sleep(0.01)
    print(serve.server.servers[0].sockets[0].getsockname()[1], flush=True)
    sys.stdin.read()
    serve.kill_server()

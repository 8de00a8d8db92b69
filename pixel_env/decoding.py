"""Decoding of image and video files: the one boundary between untrusted files and the rest.

Everything goes through :func:`decode`, which limits time and turns every failure into a :class:`MediaError`; the
decoders themselves limit pixels before they decode. Decoders are module-level functions of plain arguments and give
plain data, so the boundary can move into a process that can be killed.
"""

import io
import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import av

MAX_IMAGE_PIXELS = 2**26
"""Most pixels an image file may hold: 8192 squared."""

MAX_VIDEO_PIXELS = 2**27
"""Most pixels the sampled frames of a video file may hold together: 16 frames of 3840x2160."""

DECODE_SECONDS = 60.0

Frames = tuple[list[np.ndarray], list[float]]
"""Pictures (H, W, 3) uint8 and their times in seconds from the first frame of the file."""


class MediaError(RuntimeError):
    """A file that cannot be shown: missing, damaged, above the pixel limit, or too slow to decode."""


Result = TypeVar("Result")


def decode(function: Callable[..., Result], *arguments: Any, seconds: float = DECODE_SECONDS) -> Result:
    """Run a decoder with a time-out; everything that goes wrong in it becomes a :class:`MediaError`.

    The decoder runs in a thread of its own, opens and closes its reader there (no reader of decord or PyAV may be
    shared by threads), and is abandoned when it is too slow.

    Args:
        function: A module-level function of plain arguments, the path of the file first.
        *arguments: Its arguments.
        seconds: Time-out in seconds.
    """
    outcome: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((function(*arguments), None))
        except BaseException as error:  # carried to the caller below, whatever it is
            outcome.put((None, error))

    threading.Thread(target=work, name=f"decode {arguments[0]}", daemon=True).start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise MediaError(f"{arguments[0]}: decoding took longer than {seconds:g} s") from None
    if error is not None:
        raise MediaError(f"{arguments[0]}: cannot be decoded: {error}") from error
    return result  # type: ignore[return-value]


def to_rgb(picture: Image.Image) -> Image.Image:
    """Turn a picture as EXIF says and convert it to RGB, transparent parts onto white."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):  # Pillow would cut 16-bit grey at 255 and show it white
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return upright.convert("RGB")


def check_pixels(pixels: int, limit: int) -> None:
    """Raise ValueError when a file holds no pixel or more than ``limit``."""
    if not 0 < pixels <= limit:
        raise ValueError(f"expected 1 to {limit} pixels, got {pixels}; make the file smaller")


def decode_image(path: str) -> Image.Image:
    """Read an image file as RGB, the first frame of an animated one."""
    return _opened(path)


def decode_image_bytes(data: bytes) -> Image.Image:
    """Read an encoded image as RGB."""
    return _opened(io.BytesIO(data))


def _opened(file: str | io.BytesIO) -> Image.Image:
    with Image.open(file) as picture:
        check_pixels(picture.width * picture.height, MAX_IMAGE_PIXELS)
        return to_rgb(picture)


def decode_images(folder: str, names: Sequence[str]) -> list[np.ndarray]:
    """Read frames of one size stored as image files: arrays (H, W, 3) uint8 in the order of ``names``."""
    pictures: list[np.ndarray] = []
    for name in names:
        with Image.open(f"{folder}/{name}") as picture:
            check_pixels(picture.width * picture.height * len(names), MAX_VIDEO_PIXELS)
            pictures.append(np.asarray(to_rgb(picture)))
        if pictures[-1].shape != pictures[0].shape:
            first, other = ("{1} x {0}".format(*array.shape) for array in (pictures[0], pictures[-1]))
            raise ValueError(f"expected frames of one size, {first} as {names[0]}, got {other} in {name}")
    return pictures


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken.

    Attributes:
        num_frames: How many at most.
        start: Seconds from the first frame at which the segment begins, None for the beginning of the file.
        end: Seconds at which it ends, None for the end of the file.
        rule: ``"middle"``: the middles of equal parts, no frame twice (`sample_frames`). ``"mvbench"``: that of
            MVBench, which repeats frames of a short segment (`mvbench_frames`).
    """

    num_frames: int
    start: float | None = None
    end: float | None = None
    rule: str = "middle"

    def indices(self, times: Sequence[float]) -> list[int]:
        """Return the 0-based numbers of the frames to take, for the time of every frame in seconds, ascending.

        Raises:
            ValueError: No frame lies in the segment.
        """
        array = np.asarray(times)
        low, high = self.start or 0.0, times[-1] if self.end is None else self.end
        if not 0 <= low <= high or low > times[-1]:
            raise ValueError(f"expected a segment within 0 to {times[-1]:.2f} s, got {low:g} to {high:g} s")
        if self.rule == "mvbench":
            # The official code multiplies with the mean frame rate; by time it is right at a variable rate too.
            first, last = (int(np.abs(array - second).argmin()) for second in (low, high))
            return mvbench_frames(first, last, self.num_frames)
        inside = np.flatnonzero((array >= low - 1e-6) & (array <= high + 1e-6))
        if not len(inside):
            raise ValueError(f"expected a segment that holds a frame, got {low:g} to {high:g} s")
        return [int(inside[index]) for index in sample_frames(len(inside), self.num_frames)]


def probe_video(path: str) -> tuple[int, int, list[float]]:
    """Read width and height, as stored, and the time of every frame in seconds, without decoding a picture."""
    import av  # where it is needed: images do without a video reader

    with av.open(path) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        # Headers may leave the number of frames out or get it wrong; packets do not. Those cut short or outside of the
        # edit list give no picture; those of AVI have only a decoding time.
        whole = (p for p in container.demux(stream) if p.size and not p.is_corrupt and not p.is_discard)
        stamps = sorted(p.dts if p.pts is None else p.pts for p in whole if p.pts is not None or p.dts is not None)
        if not stamps:
            raise ValueError("it holds no frame")
        return stream.width, stream.height, [float((stamp - stamps[0]) * stream.time_base) for stamp in stamps]


def sample_frames(count: int, num_frames: int) -> list[int]:
    """Return at most ``num_frames`` 0-based indices, the middles of equal parts of ``count`` frames.

    >>> sample_frames(300, 4), sample_frames(3, 16)
    ([37, 112, 187, 262], [0, 1, 2])
    """
    num_frames = min(num_frames, count)
    return [(2 * part + 1) * count // (2 * num_frames) for part in range(num_frames)]


def mvbench_frames(first: int, last: int, num_frames: int) -> list[int]:
    """Return the frames that MVBench takes from a segment: ``int(first + s / 2 + round(s * i))``, s = length / n.

    Args:
        first: Number of the first frame of the segment.
        last: Number of its last frame, counted alike.
        num_frames: n; a shorter segment has frames taken several times.

    >>> mvbench_frames(10, 20, 4), mvbench_frames(0, 2, 4)
    ([11, 13, 16, 19], [0, 0, 1, 2])
    """
    part = (last - first) / num_frames
    return [min(last, int(first + part / 2 + round(part * index))) for index in range(num_frames)]


def read_with_decord(path: str, indices: list[int], count: int) -> list[np.ndarray]:
    """Read frames with decord; raises ImportError where it is not installed, its own error on what it cannot read.

    ``count`` is the number of frames that there are. Where decord believes in another number it is not asked, since it
    waits for ever for a frame that does not come.
    """
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    try:
        if len(reader) != count:
            raise ValueError(f"expected {count} frames, got {len(reader)}")
        return list(reader.get_batch(indices).asnumpy())
    finally:
        del reader  # closes the file: decord has no close()


def read_with_pyav(path: str, indices: list[int]) -> list[np.ndarray]:
    """Read frames with PyAV, decoding forward from the start once."""
    import av

    wanted = set(indices)
    with av.open(path) as container:
        # The last packet of a file that was cut short would fail, and take the frames before it along.
        packets = (packet for packet in container.demux(video=0) if not packet.is_corrupt)
        frames = enumerate(frame for packet in packets for frame in packet.decode())
        pictures = {
            index: _upright(frame)
            for index, frame in itertools.takewhile(lambda pair: pair[0] <= max(wanted), frames)
            if index in wanted
        }
    if missing := wanted - pictures.keys():
        raise ValueError(f"frame {min(missing)} cannot be read; the file is damaged or cut short")
    return [pictures[index] for index in indices]


def _upright(frame: "av.VideoFrame") -> np.ndarray:
    """Return a frame as an array, turned as its display matrix says: decord does that itself."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def decode_video(path: str, sampling: Sampling) -> Frames:
    """Read the sampled frames of a video; decord first, PyAV for what decord cannot open."""
    width, height, times = probe_video(path)
    indices = sampling.indices(times)
    check_pixels(width * height * len(indices), MAX_VIDEO_PIXELS)
    try:
        pictures = read_with_decord(path, indices, len(times))
    except Exception:  # decord raises bare RuntimeError-like errors; AV1 and cut files are the common causes
        pictures = read_with_pyav(path, indices)
    return pictures, [times[index] for index in indices]


def sampled_times(path: str, sampling: Sampling) -> list[float]:
    """Return the times in seconds of the frames that would be sampled, without decoding a picture."""
    times = probe_video(path)[2]
    return [times[index] for index in sampling.indices(times)]

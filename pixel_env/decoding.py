"""Decoding of image and video files: the one boundary between untrusted files and the rest.

Everything goes through :func:`decode`, which limits time and turns every failure into a :class:`MediaError`; the
decoders themselves limit pixels before they decode. Decoders are module-level functions of plain arguments and give
plain data, so they can also run in a process that can be killed. Only formats of whole files are read: a list of other
files, or a program such as PostScript, is no picture and no video, whatever its name.

Environment variables set the limits, and hold in processes that are started too: ``PIXEL_ENV_MAX_IMAGE_PIXELS``,
``PIXEL_ENV_MAX_VIDEO_PIXELS`` and ``PIXEL_ENV_DECODE_SECONDS`` the constants of these names when this module is
imported; ``PIXEL_ENV_DECODE_IN_PROCESS=1`` lets a decoder that crashes or hangs cost one file, and not the run.
"""

import io
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from pixel_env import decoding_process

if TYPE_CHECKING:
    import av


def _limit(name: str, default: int) -> int:
    """Return a limit: what the environment says, or a default."""
    said = os.environ.get(f"PIXEL_ENV_{name}", str(default))
    if not said.isascii() or not said.isdigit() or not 0 < len(said) <= 15 or int(said) == 0:
        raise ValueError(f"expected PIXEL_ENV_{name} as a whole number of at least 1, got {said!r}")
    return int(said)


MAX_IMAGE_PIXELS = _limit("MAX_IMAGE_PIXELS", 2**26)
"""Most pixels an image file may hold: 8192 squared. Above 178,956,970 Pillow refuses, but in a process."""

REDUCTIONS = (8, 4, 2)
"""How many times smaller libjpeg decodes, apart from once."""

TURNED = (5, 6, 7, 8)
"""Orientations of EXIF that exchange width and height."""

MAX_VIDEO_PIXELS = _limit("MAX_VIDEO_PIXELS", 2**27)
"""Most pixels the sampled frames of a video file may hold together: 16 frames of 3840x2160."""

DECODE_SECONDS = _limit("DECODE_SECONDS", 60)

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Names that Pillow knows them by."""

VIDEO_FORMATS = {"format_whitelist": "mov,matroska,avi,mpeg,mpegvideo,mpegts,flv", "protocol_whitelist": "file"}
"""Options of FFmpeg."""

Frames = tuple[list[np.ndarray], list[float]]
"""Pictures (H, W, 3) uint8 and their times in seconds from the first frame of the file."""


class MediaError(RuntimeError):
    """A file that cannot be shown: missing, damaged, above the pixel limit, or too slow to decode."""


Result = TypeVar("Result")


def decode(function: Callable[..., Result], *arguments: Any, seconds: float | None = None) -> Result:
    """Run a decoder with a time-out; everything that goes wrong in it becomes a :class:`MediaError`.

    The decoder runs in a thread of its own, opens and closes its reader there (no reader of decord or PyAV may be
    shared by threads), and is abandoned when it is too slow; or, with ``PIXEL_ENV_DECODE_IN_PROCESS=1``, in a process,
    which is killed.

    Args:
        function: A module-level function of plain arguments, the path of the file first.
        *arguments: Its arguments.
        seconds: Time-out in seconds, by default `DECODE_SECONDS`.
    """
    if os.environ.get("PIXEL_ENV_DECODE_IN_PROCESS", "0") == "0":
        return decode_here(function, *arguments, seconds=seconds)
    seconds = DECODE_SECONDS if seconds is None else seconds
    limits = {"MAX_IMAGE_PIXELS": MAX_IMAGE_PIXELS, "MAX_VIDEO_PIXELS": MAX_VIDEO_PIXELS}
    try:
        result: Result = decoding_process.run(function, arguments, limits, seconds)
    except decoding_process.Late:
        raise MediaError(f"{arguments[0]}: decoding took longer than {seconds:g} s") from None
    except (decoding_process.Died, decoding_process.Failed) as error:
        raise MediaError(f"{arguments[0]}: cannot be decoded: {error}") from error
    return result


def decode_here(function: Callable[..., Result], *arguments: Any, seconds: float | None = None) -> Result:
    """Run a decoder in a thread, whatever the environment says; arguments as for :func:`decode`."""
    seconds = DECODE_SECONDS if seconds is None else seconds
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
    """Turn a picture as EXIF says, in place, and return it as RGB, transparent parts onto white; no copy of RGB.

    Grey of up to 16 bits is scaled to 8, which Pillow would cut at 255 and show white.

    Raises:
        ValueError: Grey values without a known range: signed, of 32 bits, or fractions.
    """
    bits = _grey_bits(picture)
    ImageOps.exif_transpose(picture, in_place=True)
    if bits > 8:
        picture = Image.fromarray((np.asarray(picture) >> bits - 8).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _grey_bits(picture: Image.Image) -> int:
    """Return how many bits a grey value has where Pillow leaves them as they are stored, else 8."""
    if picture.mode.startswith("I;16"):
        (bits,) = getattr(picture, "tag_v2", {}).get(258, (16,))  # BitsPerSample: 12 in some TIFF files
        return int(bits)
    if picture.mode == "I" and picture.format == "PNG":  # as Pillow before 11 reads 16 bits
        return 16
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"expected grey of 8 or 16 bits, got values of mode {picture.mode} ({picture.format}), of which nobody "
            "says what is black and what white; store it with 8 bits"
        )
    return 8


def check_pixels(pixels: int, limit: int) -> None:
    """Raise ValueError when a file holds no pixel or more than ``limit``."""
    if not 0 < pixels <= limit:
        raise ValueError(f"expected 1 to {limit} pixels, got {pixels}; make the file smaller")


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG says before it is decoded.

    Attributes:
        width: Width in pixels, turned as EXIF says.
        height: Height in pixels, likewise.
        reductions: How many times smaller it can be decoded, the largest number first.
    """

    width: int
    height: int
    reductions: tuple[int, ...]


def read_header(file: str | bytes) -> JpegHeader | None:
    """Read the header of a JPEG, given by path or as bytes; None for other formats, which decode at full size only."""
    with _opened(file) as picture:
        if not isinstance(picture, JpegImageFile):
            return None
        width, height = picture.size
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        # A side that cannot be divided ends in a pixel that is part empty: turned, it would be the first one.
        reductions = [k for k in REDUCTIONS if orientation == 1 or width % k == height % k == 0]
        return JpegHeader(*((height, width) if orientation in TURNED else (width, height)), tuple(reductions))


def decode_image(file: str | bytes, reduction: int = 1) -> Image.Image:
    """Read an image, given by path or as bytes, as RGB, the first frame of an animated one.

    Args:
        file: One of `IMAGE_FORMATS`.
        reduction: Decode it this many times smaller, sides rounded up: one of `JpegHeader.reductions`. A JPEG stores
            8 x 8 pixels as 64 frequencies, of which the lowest are a smaller picture.
    """
    with _opened(file) as picture:
        if reduction > 1:
            picture.draft(None, (picture.width // reduction, picture.height // reduction))
        return to_rgb(picture)


@contextmanager
def _opened(file: str | bytes) -> Iterator[Image.Image]:
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=IMAGE_FORMATS) as picture:
        check_pixels(picture.width * picture.height, MAX_IMAGE_PIXELS)
        yield picture


def decode_images(folder: str, names: Sequence[str]) -> list[np.ndarray]:
    """Read frames of one size stored as image files: arrays (H, W, 3) uint8 in the order of ``names``."""
    pictures: list[np.ndarray] = []
    for name in names:
        with Image.open(f"{folder}/{name}", formats=IMAGE_FORMATS) as picture:
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

    with av.open(path, options=VIDEO_FORMATS) as container:
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
    """Read frames with decord; raises ImportError where it is not installed, RuntimeError on what it cannot read.

    ``count`` is the number of frames that there are. Where decord believes in another number it is not asked, since it
    waits for ever for a frame that does not come.
    """
    import decord

    try:
        reader = decord.VideoReader(path, num_threads=1)
        try:
            if len(reader) != count:
                raise ValueError(f"expected {count} frames, got {len(reader)}")
            return list(reader.get_batch(indices).asnumpy())
        finally:
            del reader  # closes the file: decord has no close()
    except decord.DECORDError as error:
        raise RuntimeError(str(error)) from error


def read_with_pyav(path: str, indices: list[int]) -> list[np.ndarray]:
    """Read frames with PyAV, decoding only from the last key frame before each of them, where that can be told."""
    import av

    try:
        return _read_from_key_frames(path, indices)
    except (ValueError, av.FFmpegError):  # packets without times, files that were cut short, ...
        return _read_from_the_start(path, indices)


def _read_from_key_frames(path: str, indices: list[int]) -> list[np.ndarray]:
    """Read frames, skipping packets between them; raises ValueError where times and key frames do not lead to them."""
    import av

    with av.open(path, options=VIDEO_FORMATS) as container:
        packets = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if _whole(p)]
    stamps = sorted(stamp for stamp, _ in packets if stamp is not None)
    wanted = {stamps[index] for index in indices} if len(set(stamps)) == len(packets) else set()
    runs = _runs(packets, wanted)
    pictures: dict[int, np.ndarray] = {}
    with av.open(path, options=VIDEO_FORMATS) as container:
        codec = container.streams.video[0].codec_context
        codec.options = _bounded(wanted)
        codec.open(strict=False)  # before `skip_frame` is set: a decoder that reads it once is to skip nothing
        for position, packet in enumerate(filter(_whole, container.demux(video=0))):
            if not runs:
                break
            codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"  # no other frame is made from those
            frames = packet.decode() if position in runs[0] else []
            if position == runs[0][-1]:
                frames += codec.decode(None)  # those that wait for their turn; then as new for the next run
                codec.flush_buffers()
                del runs[0]
            pictures |= {frame.pts: _upright(frame) for frame in frames if frame.pts in wanted and not frame.is_corrupt}
    if not wanted or wanted - pictures.keys():
        raise ValueError("the key frames do not lead to every frame")
    return _of_one_size([pictures[stamps[index]] for index in indices])


def _whole(packet: "av.Packet") -> bool:
    """Whether a packet gives a picture; one that must be decoded without being shown makes the times of no use."""
    if packet.size and (packet.is_corrupt or packet.is_discard):
        raise ValueError("it holds packets that show nothing")
    return bool(packet.size)


def _runs(packets: Sequence[tuple[int | None, bool]], wanted: set[int]) -> list[range]:
    """Return which packets to decode for the wanted frames, as runs that begin with a key frame.

    Frames come back in the order of their times, and packets lie in the order of decoding. What follows a key frame in
    both orders needs nothing from before it.

    Args:
        packets: Time stamp of each packet, and whether it is a key frame.
        wanted: Time stamps.

    >>> _runs([(0, True), (3, False), (1, False), (9, True), (8, False), (10, False)], {1, 9}), _runs([(0, True)], {0})
    ([range(0, 3), range(3, 4)], [range(0, 1)])
    >>> _runs([(0, True), (3, False), (1, False), (9, True), (8, False), (10, False)], {8, 10})
    [range(0, 6)]
    """
    runs: list[range] = []
    keys: list[int] = []
    for position, (stamp, is_key) in enumerate(packets):
        if is_key:
            keys.append(position)
        if stamp in wanted:
            begin = next((key for key in reversed(keys) if (packets[key][0] or 0) <= stamp), 0)
            if runs and begin < runs[-1].stop:
                begin = runs.pop().start
            runs.append(range(begin, position + 1))
    return runs


def _read_from_the_start(path: str, indices: list[int]) -> list[np.ndarray]:
    """Read frames, decoding all before them."""
    import av

    wanted = set(indices)
    with av.open(path, options=VIDEO_FORMATS) as container:
        container.streams.video[0].codec_context.options = _bounded(wanted)
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
    return _of_one_size([pictures[index] for index in indices])


def _bounded(wanted: set[int]) -> dict[str, str]:
    """Return options of a codec for so many frames: the header may promise smaller ones than there are."""
    return {"max_pixels": str(MAX_VIDEO_PIXELS // max(1, len(wanted)))}


def _of_one_size(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Return `pictures`; raises ValueError where they differ in size."""
    if len(sizes := {picture.shape for picture in pictures}) > 1:
        listed = ", ".join(f"{width} x {height}" for height, width, _ in sorted(sizes))
        raise ValueError(f"expected frames of one size, got {listed}")
    return pictures


def _upright(frame: "av.VideoFrame") -> np.ndarray:
    """Return a frame as an array, turned as its display matrix says: decord does that itself."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def decode_video(path: str, sampling: Sampling) -> Frames:
    """Read the sampled frames of a video.

    PyAV comes first where key frames lead to them: the pictures are those of decord, sooner. Else decord, where it is
    installed and can, and PyAV from the start.
    """
    import av

    width, height, times = probe_video(path)
    indices = sampling.indices(times)
    check_pixels(width * height * len(indices), MAX_VIDEO_PIXELS)
    try:
        pictures = _read_from_key_frames(path, indices)
    except (ValueError, av.FFmpegError):
        try:
            pictures = read_with_decord(path, indices, len(times))
        except (ModuleNotFoundError, ValueError, RuntimeError):  # not installed, or a file that was cut short
            pictures = _read_from_the_start(path, indices)
    return pictures, [times[index] for index in indices]


def sampled_times(path: str, sampling: Sampling) -> list[float]:
    """Return the times in seconds of the frames that would be sampled, without decoding a picture."""
    times = probe_video(path)[2]
    return [times[index] for index in sampling.indices(times)]

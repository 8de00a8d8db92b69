"""Files that nobody has checked: each is shown as it should be, or costs its item with a reason, and nothing else."""

import io
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fakes import ramp
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import read_code, write_coded
from PIL import Image

from pixel_env import PixelReasonEnv, decoding
from pixel_env.decoding import MediaError
from pixel_env.media import ImageFile, VideoFile
from pixel_env.tasks import TaskList, load_tasks
from pixel_env.tasks.task import Task

RAMP = Image.fromarray(ramp(64, 48))
GREY16 = Image.fromarray((np.linspace(0, 65535, 64 * 48).reshape(48, 64)).astype(np.uint16))


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def with_palette() -> bytes:
    """Left half opaque green, right half through and through transparent red."""
    picture = Image.new("P", (64, 48))
    picture.putpalette([0, 255, 0, 255, 0, 0])
    picture.paste(1, (32, 0, 64, 48))
    return encoded(picture, "PNG", transparency=b"\xff\x00")


def moving(form: str) -> bytes:
    return encoded(RAMP, form, save_all=True, append_images=[Image.new("RGB", (64, 48), "white")] * 3)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(RAMP, "JPEG", exif=exif, quality=95)


def grey_tiff(bits: int) -> bytes:
    """A TIFF of 4 x 2 grey values of 12 or 16 bits, half of what they can hold: no library at hand writes 12."""
    value = f"{1 << bits - 1:0{bits}b}"
    data = int(value * 8, 2).to_bytes(bits)
    tags = {256: 4, 257: 2, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags.items())
    file = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data
    return file + struct.pack("<H", len(tags)) + entries + bytes(4)


# What is in the file, and what (x, y) of the picture has to look like: red, green, blue, within 20.
SHOWN: dict[str, tuple[Callable[[], bytes], tuple[int, int], tuple[int, int], tuple[int, int, int]]] = {
    "jpeg": (lambda: encoded(RAMP, "JPEG", quality=95), (64, 48), (63, 0), (255, 0, 0)),
    "webp": (lambda: encoded(RAMP, "WEBP", lossless=True), (64, 48), (63, 47), (255, 255, 0)),
    "bmp": (lambda: encoded(RAMP, "BMP"), (64, 48), (0, 47), (0, 255, 0)),
    "cmyk": (lambda: encoded(RAMP.convert("CMYK"), "JPEG", quality=95), (64, 48), (63, 0), (255, 0, 0)),
    "16 bits a grey": (lambda: encoded(GREY16, "PNG"), (64, 48), (32, 24), (128, 128, 128)),
    "16 bits a grey, tiff": (lambda: encoded(GREY16, "TIFF"), (64, 48), (63, 47), (255, 255, 255)),
    "12 bits a grey": (lambda: grey_tiff(12), (4, 2), (1, 0), (128, 128, 128)),
    "1 bit": (lambda: encoded(Image.new("1", (64, 48), 1), "PNG"), (64, 48), (9, 9), (255, 255, 255)),
    "palette": (with_palette, (64, 48), (5, 5), (0, 255, 0)),
    "palette, clear": (with_palette, (64, 48), (50, 5), (255, 255, 255)),
    "moving gif": (lambda: moving("GIF"), (64, 48), (63, 0), (255, 0, 0)),
    "moving png": (lambda: moving("PNG"), (64, 48), (63, 0), (255, 0, 0)),
    "moving webp": (lambda: moving("WEBP"), (64, 48), (63, 0), (255, 0, 0)),
    "two pictures of a phone": (lambda: moving("MPO"), (64, 48), (63, 0), (255, 0, 0)),
    "turned": (turned, (48, 64), (47, 63), (255, 0, 0)),
    "one pixel": (lambda: encoded(Image.new("RGB", (1, 1), "blue"), "PNG"), (1, 1), (0, 0), (0, 0, 255)),
    "a line": (lambda: encoded(Image.new("RGB", (5000, 1), "blue"), "PNG"), (5000, 1), (4999, 0), (0, 0, 255)),
}


@pytest.mark.parametrize(("content", "size", "place", "colour"), SHOWN.values(), ids=SHOWN)
@pytest.mark.parametrize("suffix", ["png", "jpg"])  # the name says nothing
def test_odd_images_are_shown(content, size, place, colour, suffix: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content())
    source = ImageFile(path)
    assert (source.width, source.height) == size and source.frame(0).mode == "RGB"
    assert source.frame(0).getpixel(place) == pytest.approx(colour, abs=20)
    task = Task("a", "search", "Which?", source, ("red",), "text")
    env = PixelReasonEnv(tasks=TaskList((task,)), preset="micro")
    env.reset(seed=0)
    assert env.step("crop_image([0, 0, 9, 9])")[4]["operation_error"] in (None, "tiny_box")


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of a header and what may be its pixels: 1 bit each, black."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + (chunk(b"IDAT", data) if data else b"") + chunk(b"IEND", b"")


JPEG = encoded(RAMP, "JPEG")
REFUSED = {
    "empty": (b"", "cannot identify"),
    "a text": (b"hello" * 100, "cannot identify"),
    "cut": (JPEG[: len(JPEG) // 2], "(?i:truncated)"),
    "cut in the header": (JPEG[:20], "cannot identify|truncated"),
    "without pixels": (png(4, 4), "truncated|cannot|broken"),
    "no width": (png(0, 4), "."),
    "bomb": (png(20_000, 20_000, zlib.compress(bytes(2501 * 20_000), 9)), "decompression bomb"),
    "large": (png(9_000, 9_000), "expected 1 to 67108864 pixels, got 81000000"),
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "cannot identify"),
    "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>', "cannot identify"),
    "grey of 32 bits": (
        encoded(Image.new("I", (64, 48), 65535), "TIFF"),
        "expected grey of 8 or 16 .*mode I",
    ),
    "grey as fractions": (
        encoded(Image.new("F", (64, 48), 0.5), "TIFF"),
        "expected grey of 8 or 16 .*mode F",
    ),
    "other format": (encoded(RAMP, "PPM"), "cannot identify"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_damaged_images_cost_their_item(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MediaError, match=rf"a\.png: cannot be decoded: .*({said})"):
        ImageFile(tmp_path / "a.png").frame(0)


WHOLE = {
    form: encoded(RAMP, form, **({"compression": "tiff_lzw"} if form == "TIFF" else {}))
    for form in decoding.IMAGE_FORMATS
}


@pytest.mark.filterwarnings("ignore")  # of Pillow, on what is odd in a file
@settings(deadline=None, max_examples=150)
@given(
    form=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1.2),
)
def test_any_damage_is_a_picture_or_an_error(
    form: str, changes: list[tuple[float, int]], kept: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(WHOLE[form])
    for place, value in changes:
        data[min(len(data) - 1, int(place * len(data)))] = value
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(data[: max(1, int(kept * len(data)))])
    source = ImageFile(path)
    try:
        picture = source.frame(0)
    except MediaError as error:
        assert str(error).startswith(f"{path}: cannot be decoded: ")
    else:
        assert picture.mode == "RGB" and picture.size == (source.width, source.height)
        assert 0 < picture.width * picture.height <= decoding.MAX_IMAGE_PIXELS


# --- videos -----------------------------------------------------------------------------------------------------------


def jpeg_frames(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """An AVI whose header promises the size of the first frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height = sizes[0]
        stream.pix_fmt = "yuvj420p"
        for index, size in enumerate(sizes):
            packet = av.Packet(encoded(RAMP.resize(size), "JPEG"))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 10)
            container.mux(packet)
    return path


@pytest.fixture
def by_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, indices: list[int], count: int) -> list[np.ndarray]:
        raise RuntimeError("cannot find video stream")

    monkeypatch.setattr(decoding, "read_with_decord", refuse)


@pytest.mark.parametrize("error", [MemoryError("no room"), ImportError("libav of another version")])
def test_what_is_no_fault_of_the_video_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> list[np.ndarray]:
        raise error

    path = write_coded(tmp_path / "a.mp4", list(range(8)))
    monkeypatch.setattr(decoding, "_runs", lambda packets, wanted: [])  # no key frame leads anywhere
    monkeypatch.setattr(decoding, "read_with_decord", refuse)
    with pytest.raises(MediaError, match=str(error)):
        VideoFile(path).frame(0)


@pytest.mark.usefixtures("by_pyav")
def test_frames_that_grow_are_no_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = jpeg_frames(tmp_path / "grown.avi", [(64, 48)] * 4 + [(640, 480)] * 4)
    with pytest.raises(MediaError, match="expected frames of one size, got 64 x 48, 640 x 480"):
        VideoFile(grown).frame(0)
    assert VideoFile(grown, sampled=8, end=0.3).num_frames == 4
    monkeypatch.setattr(decoding, "MAX_VIDEO_PIXELS", 8 * 640 * 480 - 1)  # enough for 8 as the header says
    with pytest.raises(MediaError, match=r"grown\.avi: cannot be decoded: (?!expected frames of one size)"):
        VideoFile(grown).frame(0)


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    secret = write_coded(tmp_path / "secret" / "a.mp4", [0, 1, 2])
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n"
    root = tmp_path / "root"
    root.mkdir()
    for name, content in {
        "a.mp4": "ffconcat version 1.0\nfile ../secret/a.mp4\n",
        "b.m3u8": playlist,
        "c.mp4": playlist,
    }.items():
        (root / name).write_text(content)
        with pytest.raises(MediaError, match=rf"{name}: cannot be decoded"):
            VideoFile(root / name).frame(0)
    (root / "d.mp4").symlink_to(secret)
    write = '{"video": "%s", "question": "What?"}\n'
    (root / "own.jsonl").write_text(write % "d.mp4" + write % "../secret/a.mp4")
    for index in range(2):
        with pytest.raises(MediaError, match="inside the data root"):
            load_tasks("jsonl", root)[index].media.frame(0)


def test_videos_without_frames(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match=r"sound\.mp4: cannot be decoded: it holds no video stream"):
        VideoFile(tmp_path / "sound.mp4").frame(0)
    with av.open(str(tmp_path / "none.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match=r"none\.avi: cannot be decoded"):
        VideoFile(tmp_path / "none.avi").frame(0)


@pytest.mark.usefixtures("by_pyav")
def test_any_damage_to_a_video_is_frames_or_an_error(tmp_path: Path) -> None:
    whole = write_coded(tmp_path / "whole.mp4", list(range(12)), options={"movflags": "faststart"}).read_bytes()
    rng, shown = np.random.default_rng(0), 0
    for number in range(40):
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(len(data), size=rng.integers(1, 20))
        data[places] = rng.integers(256, size=len(places))
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)].tobytes())
        source = VideoFile(path, sampled=4)
        try:
            pictures = [source.frame(index) for index in range(source.num_frames)]
        except MediaError:
            continue
        shown += 1
        assert {picture.size for picture in pictures} == {(source.width, source.height)}
        assert all(0 <= read_code(picture) < 64 for picture in pictures) or source.width < 96
    assert 0 < shown < 40

"""Writes small task sets as the published ones lie on disk. Nothing here is read by the code under test."""

import base64
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image


def picture(colour: tuple[int, int, int] = (200, 40, 40), size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A plain picture of (width, height)."""
    return Image.new("RGB", size, colour)


def save(path: Path, colour: tuple[int, int, int] = (200, 40, 40), size: tuple[int, int] = (120, 90)) -> Path:
    """A picture file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(colour, size).save(path)
    return path


def png(colour: tuple[int, int, int] = (200, 40, 40), size: tuple[int, int] = (120, 90)) -> bytes:
    """An encoded picture."""
    buffer = io.BytesIO()
    picture(colour, size).save(buffer, "PNG")
    return buffer.getvalue()


def base64_png(colour: tuple[int, int, int] = (200, 40, 40)) -> str:
    """A picture as the TSV and parquet files of HR-Bench hold it."""
    return base64.b64encode(png(colour)).decode()


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, values: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], row_group_size: int | None = None, **options: Any) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=row_group_size, **options)
    return path


CODE_BITS = 6


def coded_frame(index: int) -> np.ndarray:
    """A frame that says its number in black and white stripes, which survive lossy coding."""
    frame = np.zeros((64, 96, 3), np.uint8)
    for bit in range(CODE_BITS):
        frame[:, 16 * bit : 16 * bit + 16] = 255 * (index >> bit & 1)
    return frame


def read_code(shown: Image.Image | np.ndarray) -> int:
    pixels = np.asarray(shown)
    return sum(int(pixels[32, 16 * bit + 8, 0] > 128) << bit for bit in range(CODE_BITS))


def write_coded(
    path: Path,
    stamps: list[int],
    rate: int = 10,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    turned: int = 0,
) -> Path:
    """A video whose i-th frame says i and is shown at ``stamps[i] / rate`` seconds, ``turned`` by degrees if at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=rate, options=quiet)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        if turned:
            stream.set_display_rotation(turned)
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(coded_frame(index), "rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def vstar(root: Path, questions: bool = True) -> Path:
    """V*Bench with two questions of three and one; in the files beside the images the first option is right."""
    items = [
        ("direct_attributes/sa_1", "glove", [[30, 20, 10, 12]], "What is the color of the glove?",
         ["rubber red", "blue", "white", "green"], "C", ["blue", "white", "rubber red", "green"]),
        ("direct_attributes/sa_2", "dog", [[5, 6, 7, 8]], "What is the color of the dog?",
         ["black", "brown"], "A", ["black", "brown"]),
        ("relative_position/sa_3", "cat", [[0, 0, 10, 10], [50, 40, 20, 30]], "Is the cat left of the cup?",
         ["The cat is on the left", "The cat is on the right"], "B",
         ["The cat is on the right", "The cat is on the left"]),
    ]  # fmt: skip
    lines = []
    for number, (stem, target, bbox, question, options, label, shown) in enumerate(items):
        save(root / f"{stem}.jpg", (10 * number, 100, 50))
        annotation = {"target_object": [target], "bbox": bbox, "question": question, "options": options}
        write_json(root / f"{stem}.json", annotation)
        marked = "".join(f"\n({letter}) {option}" for letter, option in zip("ABCD", shown, strict=False))
        lines.append({
            "image": f"{stem}.jpg", "category": stem.partition("/")[0], "label": label, "question_id": number,
            "text": f"{question}{marked}\nAnswer with the option's letter from the given choices directly.",
        })  # fmt: skip
    if questions:
        write_lines(root / "test_questions.jsonl", lines)
    return root


HRBENCH_COLUMNS = ("index", "question", "answer", "A", "B", "C", "D", "category", "cycle_category", "image")


def hrbench_rows() -> list[dict[str, Any]]:
    """Two questions, each with its options turned round four times."""
    rows = []
    for number, (question, right, options) in enumerate(
        [('What does the "sign" say?', "exit", ["exit", "in", "out", "stop"]), ("Which digit?", "7", list("7890"))]
    ):
        for turn in range(4):
            turned = options[turn:] + options[:turn]
            rows.append({
                "index": 4 * number + turn, "question": question, "answer": "ABCD"[turned.index(right)],
                **dict(zip("ABCD", turned, strict=True)), "category": ("single", "cross")[number],
                "cycle_category": f"cycle {number}", "image": base64_png((4 * number + turn, 0, 200)),
            })  # fmt: skip
    return rows


def hrbench_tsv(path: Path) -> Path:
    """The same, as pandas writes it: cells with quotes or new lines in quotes."""
    lines = ["\t".join(HRBENCH_COLUMNS)]
    for row in hrbench_rows():
        cells = [str(row[name]) for name in HRBENCH_COLUMNS]
        lines.append("\t".join('"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def mme_realworld_rows() -> list[dict[str, Any]]:
    """Rows of MME-RealWorld-lite-lmms-eval: options with their letters, the fifth always of the same kind."""
    absent = "(E) This image doesn't feature the {}."
    return [
        {"bytes": base64_png((0, 0, 1)), "index": 7, "question": "What color is the shed? ", "answer": "B",
         "multi-choice options": ["(A) Red", "(B) White", "(C) Green", "(D) Blue", absent.format("color")],
         "category": "Perception/Remote Sensing", "l2-category": "color"},
        {"bytes": base64_png((0, 0, 2)), "index": 8, "question": "Which letter is on the door?", "answer": "C",
         "multi-choice options": ["(A) C", "(B) A", "(C) B", "(D) K", absent.format("letter")],
         "category": "Perception/OCR with Complex Context", "l2-category": "text recognition"},
        {"bytes": base64_png((0, 0, 3)), "index": 9, "question": "Where will the car go?", "answer": "E",
         "multi-choice options": ["(A) Left", "(B) Right", "(C) Back", "(D) On", absent.format("car")],
         "category": "Reasoning/Autonomous_Driving", "l2-category": "intention"},
    ]  # fmt: skip


def visualprobe(root: Path) -> Path:
    """The repository VisualProbe_Hard, whose JSON names itself in the paths, and VisualProbe_train beside it."""
    for split, table in (("Hard", "val"), ("train", "train")):
        folder, stem = root / f"VisualProbe_{split}", f"visual_probe_{split.lower()}"
        save(folder / f"data/{stem}_60.jpg", size=(200, 90))
        items = [("What does the sign say?", "No entry"), ("How many cranes are there?", "3")]
        write_json(folder / f"{table}.json", [
            {"images": [f"{folder.name}/data/{stem}_60.jpg"], "problem": f"<image>\n{question}", "solution": solution,
             "data_source": stem, "doc_id": f"{stem}_{number}"}
            for number, (question, solution) in enumerate(items)
        ])  # fmt: skip
    return root / "VisualProbe_Hard"


TREEBENCH_COLUMNS = ("index", "image", "question", "multi-choice options", *"ABCDEFGHIJK", "answer", "category",
                     "l2-category", "target_instances")  # fmt: skip


def treebench_rows() -> list[dict[str, Any]]:
    """Two target instances and six options; options in the image only; a row with two options in one cell."""
    rows = []
    for number, (question, options, shown, answer, category, boxes) in enumerate([
        ("Which is nearest?", ["car", "bus", "B", "van", "tram", "bike"],
         "A. car\nB. bus\nC. B\nD. van\nE. tram\nF. bike", "F", "Reasoning/Ordering",
         "[[10, 20, 30, 40], [50, 5, 70, 60]]"),
        ("Which word follows?", [], "A. exit\nB in\nC out of", "C", "Perception/OCR", "[[1, 2, 3, 4]]"),
        ("Which material?", ["wood B. brick", "steel", "glass"], "A. wood B. brick\nC. steel\nD. glass", "D",
         "Perception/Material", "[]"),
    ]):  # fmt: skip
        columns = dict(zip("ABCDEFGHIJK", [*options, *[None] * 11], strict=False))
        rows.append({"index": number, "image": base64_png((0, number, 0)), "question": question,
                     "multi-choice options": shown, **columns, "answer": answer, "category": category,
                     "l2-category": category, "target_instances": boxes})  # fmt: skip
    return rows


def treebench_tsv(path: Path) -> Path:
    """The same as pandas writes it: what is missing is empty, and a cell of several lines is in quotes."""
    lines = ["\t".join(TREEBENCH_COLUMNS)]
    for row in treebench_rows():
        cells = ["" if row[name] is None else str(row[name]) for name in TREEBENCH_COLUMNS]
        lines.append("\t".join(f'"{cell}"' if "\n" in cell else cell for cell in cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def zoombench_rows() -> list[dict[str, Any]]:
    """Two questions with their options, one of them with how to answer below, and one without; each with its crop."""
    how = "\nAnswer with the option's letter from the given choices directly."
    return [
        {"id": f"zb_{number}", "query": query, "response": response, "question_type": kind, "bbox": bbox,
         "image": {"bytes": png((number, 0, 0), (400, 300)), "path": None},
         "crop_image": {"bytes": png((number, 0, 9), (40, 30)), "path": None}}
        for number, (query, response, kind, bbox) in enumerate([
            (f"What color is the cap?\nA. red\nB. blue\nC. black{how}", "B", "mcq", [100, 50, 140, 80]),
            ("Which mark is on it?\n(A) B\n(B) C\n(C) A", "A", "mcq", [0, 0, 40, 30]),
            ("How many buttons are there? Answer with a number.", "12", "blank", [10, 20, 50, 50]),
        ])
    ]  # fmt: skip


def tallyqa(root: Path) -> Path:
    """test.json with a simple and two complex questions, train.json without that distinction."""

    def item(number: int, image: str, answer: int, **others: Any) -> dict[str, Any]:
        return {"answer": answer, "data_source": "amt", "image": image, "image_id": number,
                "question": f"How many {number}?", "question_id": number, **others}  # fmt: skip

    save(root / "VG_100K/1.jpg")
    save(root / "VG_100K_2/2.jpg")
    save(root / "train2014/3.jpg")
    write_json(root / "test.json", [
        item(10, "VG_100K/1.jpg", 3, issimple=True), item(11, "VG_100K_2/2.jpg", 0, issimple=False),
        item(12, "VG_100K/gone.jpg", 4, issimple=False),
    ])  # fmt: skip
    write_json(root / "train.json", [item(13, "train2014/3.jpg", 15)])
    return root


def infographicvqa(root: Path) -> Path:
    """val.json with answers and test.json without."""
    save(root / "images/20471.jpeg")
    head = {"dataset_name": "infographicVQA", "dataset_version": "1.0"}
    item = {"image_local_name": "20471.jpeg", "image_url": "http://x", "ocr_output_file": "20471.json"}
    write_json(root / "val.json", {**head, "dataset_split": "val", "data": [
        {"questionId": 65718, "question": "Which network?", **item, "answers": ["facebook", "Facebook"]},
        {"questionId": 65719, "question": "Which year?", **item, "answers": ["2009"]},
    ]})  # fmt: skip
    write_json(root / "test.json", {**head, "dataset_split": "test", "data": [
        {"questionId": 70001, "question": "Which city?", **item, "data_split": "test"},
        {"questionId": 70002, "question": "How many?", **item, "data_split": "test"},
    ]})  # fmt: skip
    return root


def docvqa(root: Path) -> Path:
    """DocVQA as the challenge's two archives unpack; the JSON says ``documents/`` though the images lie flat."""
    save(root / "spdocvqa_images/ffbf0023_4.png")
    item = {"question_types": ["form"], "docId": 279, "ucsf_document_id": "ffbf0023", "ucsf_document_page_no": "4",
            "image": "documents/ffbf0023_4.png", "data_split": "val"}  # fmt: skip
    write_json(root / "spdocvqa_qas/val_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "data": [
        {"questionId": 49153, "question": "What is the date?", **item, "answers": ["1/8/93"]},
    ]})  # fmt: skip
    return root


def mvbench(root: Path) -> Path:
    """A whole video, a bounded one, and a folder of frames at three a second counted from 1."""
    write_coded(root / "video/perception/videos/v1.mp4", list(range(32)))
    write_coded(root / "video/star/Charades_v1_480/v2.mp4", list(range(60)))
    for number in range(1, 31):
        path = root / f"video/tvqa/frames_fps3_hq/show/{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coded_frame(number)).save(path, quality=95)
    write_json(root / "json/action_count.json", [
        {"video": "v1.mp4", "question": "How often?", "candidates": ["3", "2", "1"], "answer": "2"},
    ])  # fmt: skip
    write_json(root / "json/action_sequence.json", [
        {"video": "v2.mp4", "question": "What happened?", "candidates": ["Sat.", "Stood."], "answer": "Stood.",
         "start": 1.0, "end": 4.0},
    ])  # fmt: skip
    write_json(root / "json/episodic_reasoning.json", [
        {"video": "show", "question": "Why?", "candidates": ["Joy", "Fear"], "answer": "Joy", "start": 2.0, "end": 8.0},
    ])  # fmt: skip
    return root


def star(root: Path) -> Path:
    """STAR_val.json with answers and STAR_test.json without; situations are long and never needed."""
    write_coded(root / "Charades_v1_480/AB12C.mp4", list(range(60)))
    item = {
        "question": "Which object was taken?", "video_id": "AB12C", "start": 1.9, "end": 3.1,
        "question_program": [{"function": "Objects"}],
        "choices": [{"choice_id": 0, "choice": "The cup.", "choice_program": []},
                    {"choice_id": 1, "choice": "The {\"odd\"} [bag].", "choice_program": []}],
        "situations": {"000010": {"rel_pairs": [["o001", "o002"]], "bbox": [[1, 2, 3, 4]]}},
    }  # fmt: skip
    write_json(root / "STAR_val.json", [{"question_id": "Interaction_T1_13", "answer": 'The {"odd"} [bag].', **item}])
    write_json(root / "STAR_test.json", [{"question_id": "Sequence_T2_7", **item}])
    return root


def pixelreasoner_rows(root: Path) -> list[dict[str, Any]]:
    """Rows of the RL data: an image with options in the question, a number, a video of frame files."""
    save(root / "images/x_0001.jpg")
    frames = [f"videos/c/{number}.jpg" for number in range(4)]
    for number, name in enumerate(frames):
        save(root / name, (60 * number, 0, 0))
    return [
        {"question": "Which colour?\n(A) red (B) blue", "answer": ["\\boxed{B}"], "image": ["images/x_0001.jpg"],
         "is_video": False, "qid": "vstar-17"},
        {"question": "How many dogs?", "answer": ["\\boxed{4}"], "image": ["images/x_0001.jpg"], "is_video": False,
         "qid": "tallyqa-3"},
        {"question": "Which year?", "answer": ["2009"], "image": ["images/x_0001.jpg"], "is_video": False,
         "qid": "infovqa-9"},
        {"question": "What next?\nA. sits\nB. runs", "answer": ["\\boxed{A}"], "image": frames, "is_video": True,
         "qid": "STAR-2"},
    ]  # fmt: skip


def video_r1(root: Path) -> Path:
    save(root / "Chart/1.png")
    write_coded(root / "LLaVA/2.mp4", list(range(20)))
    return write_json(root / "Video-R1-260k.json", [
        {"problem_id": 0, "problem": "Which animal?", "data_type": "video", "problem_type": "multiple choice",
         "options": ["A. a cat", "B. a dog"], "solution": "<answer>B</answer>", "path": "./LLaVA/2.mp4"},
        {"problem_id": 1, "problem": "How much?", "data_type": "image", "problem_type": "numerical", "options": [],
         "solution": "<answer>3.50</answer>", "path": "./Chart/1.png"},
        {"problem_id": 2, "problem": "Read it.", "data_type": "image", "problem_type": "OCR", "options": [],
         "solution": "<answer>Total 12</answer>", "path": "./Chart/1.png"},
    ])  # fmt: skip


def crop_call(bbox: list[float], target: int = 1, name: str = "crop_image_normalized") -> str:
    """A call as the SFT data writes it: box in fractions, images counted from 1."""
    return (
        f'<tool_call>\n{{"name": "{name}", "arguments": {{"bbox_2d": {bbox}, "target_image": {target}}}}}\n</tool_call>'
    )


def frames_call(frames: list[int]) -> str:
    return f'<tool_call>\n{{"name": "select_frames", "arguments": {{"target_frames": {frames}}}}}\n</tool_call>'


def message(role: str, text: str, *images: str, video: list[str] | None = None) -> dict[str, Any]:
    """A message with its visuals first; what an item is not is null, as after a trip through a table."""
    items: list[dict[str, Any]] = [{"type": "image", "text": None, "image": path, "video": None} for path in images]
    if video:
        items.append({"type": "video", "text": None, "image": None, "video": video})
    return {"role": role, "content": [*items, {"type": "text", "text": text, "image": None, "video": None}]}


GUIDELINES = "\n\nGuidelines: Use `crop_image` or `select_frames` if it helps, and put the answer within \\boxed{}."


def sft_record(question: str, media: str | list[str], *turns: tuple[str, int]) -> dict[str, Any]:
    """A record: the question with its image or frames, then turns of the assistant, each with the images it gets."""
    asked = question + GUIDELINES
    first = message("user", asked, media) if isinstance(media, str) else message("user", asked, video=media)
    said = [message("system", "You are a helpful assistant."), first]
    for place, (text, pictures) in enumerate(turns):
        said.append(message("assistant", text))
        if place < len(turns) - 1:
            result = "\nHere is the result." if pictures else "\nExecution error: index out of range"
            said.append(message("user", result, *["images/crop.jpg"] * pictures))
    return {"message_list": said}


def pixelreasoner_sft(root: Path) -> Path:
    """The SFT data: one record of every kind; an image of 420 x 280 and videos of 4 frames of 84 x 56."""
    save(root / "images/2-0.jpg", size=(420, 280))
    save(root / "images/crop.jpg")
    frames = [f"videos/7/{number}.jpg" for number in range(4)]
    for number, name in enumerate(frames):
        save(root / name, (60 * number, 0, 0), (84, 56))
    image, sign, clip = "images/2-0.jpg", "What does the sign say?", "What happens?\nA. sits\nB. runs"
    right, done = crop_call([0.5, 0.5, 0.6, 0.6]), ("It reads exit. \\boxed{exit}", 0)
    return write_json(root / "sft.json", [
        sft_record(sign, image, (f"I zoom in. {crop_call([0.5, 0.5, 1.0, 1.0])}", 1), done),
        sft_record(sign, image, (f"Here? {crop_call([0.0, 0.0, 0.1, 0.1])}", 1),
                   (f"No sign. {crop_call([0.8, 0.0, 0.9, 0.1])}", 1), (f"Again. {right}", 1), done),
        sft_record(sign, image, (f"All of it. {crop_call([0.0, 0.0, 0.9, 0.9])}", 1), (f"Closer. {right}", 1), done),
        sft_record(sign, image, (f"Here. {crop_call([0.0, 0.0, 0.9, 0.9])}", 1),
                   (f"That was too large. {crop_call([0.5, 0.5, 0.75, 0.75], 2)}", 1), done),
        sft_record(sign, image, (f"The shop. {crop_call([0.0, 0.0, 0.9, 0.9])}", 1),
                   (f"Its sign. {crop_call([0.5, 0.5, 0.75, 0.75], 2, name='zoom_in')}", 1), done),
        sft_record(sign, image, (f"Here. {crop_call([0.5, 0.5, 0.6, 0.6], 7)}", 0), (f"Image 1. {right}", 1), done),
        sft_record("Which?\n(A) exit (B) stop", image, ("I can read it: exit. \\boxed{A}", 0)),
        sft_record(clip, frames, (f"Look. {frames_call([2, 3])}", 2), ("He runs. \\boxed{B}", 0)),
        sft_record(clip, frames, (f"Look. {frames_call([1])}", 1), (f"Later. {frames_call([3, 4])}", 2),
                   ("He runs. \\boxed{B}", 0)),
        sft_record(clip, frames, (f"Look. {frames_call([2, 3])}", 2),
                   (f"His feet. {crop_call([0.25, 0.25, 0.5, 0.5], 3)}", 1), ("He runs. \\boxed{B}", 0)),
        sft_record(clip, frames, (f"His feet. {crop_call([0.5, 0.5, 1.0, 1.0], 3)}", 1),
                   ("He runs. \\boxed{B}", 0)),
    ])  # fmt: skip

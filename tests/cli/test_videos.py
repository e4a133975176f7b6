"""Videos in files of questions: every command shows them to the model, or says that the model takes none."""

import json

import pytest
import torch
from PIL import Image
from transformers import BatchFeature, CLIPImageProcessorPil

import vistrim as library
from tests.cli.invoke import error_line, vistrim
from tests.families.zoo import FAMILIES
from tests.families.zoo.family import IMAGE, VIDEO
from tests.families.zoo.video_llava import SIDE
from tests.processors.tokens import build_tokenizer, plain
from vistrim.batching.answering import in_process
from vistrim.batching.predictor import Predictor, columns, outcome
from vistrim.calibration.st3 import search as searching
from vistrim.errors import InputError, PromptError
from vistrim.evaluation.answering import answer, answer_inputs
from vistrim.evaluation.question_files import read_questions

IMAGE_TOKENS, FRAME_TOKENS = 9, 10
METHOD = "uniform:keep=4"
PADDED = {"padding": True, "padding_side": "left"}


class VideoLlavaProcessor:
    """Makes the inputs that transformers' own class makes, which needs torchvision."""

    def __init__(self):
        self.chat_template = plain()
        self.tokenizer = build_tokenizer({IMAGE: "<image>", VIDEO: "<video>"})
        self.image_processor = CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        )
        self.video_processor = self.image_processor
        self.batch_decode = self.tokenizer.batch_decode

    def apply_chat_template(self, conversations, processor_kwargs, **_):
        texts, images, videos = [], [], []
        for (turn,) in conversations:
            text = ""
            for part in turn["content"]:
                if part["type"] == "image":
                    images.append(part["image"])
                    text += "<image>" * IMAGE_TOKENS
                elif part["type"] == "video":
                    videos.append(part["video"])
                    text += "<video>" * (FRAME_TOKENS * len(part["video"]))
                else:
                    text += part["text"]
            texts.append(text)
        assert processor_kwargs == PADDED | ({"do_sample_frames": False} if videos else {})
        found = dict(self.tokenizer(texts, return_tensors="pt", **PADDED))
        if images:
            found["pixel_values"] = self._pixels(images)
        if videos:
            found["pixel_values_videos"] = torch.stack([self._pixels(frames) for frames in videos])
        return BatchFeature(found)

    def _pixels(self, images):
        return self.image_processor(images, return_tensors="pt")["pixel_values"]


@pytest.fixture(scope="module")
def loaded():
    return FAMILIES["video_llava"].build(), VideoLlavaProcessor()


@pytest.fixture
def path(tmp_path):
    """Two videos and an image; one video has the frames of the other in reverse order."""
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 30), color).save(tmp_path / name)
    rows = (
        {"video": ["a.png", "b.png"], "prompt": "what", "answer": "red"},
        {"image": "a.png", "prompt": "what", "answer": "red"},
        {"video": ["b.png", "a.png"], "prompt": "what", "answer": "blue"},
    )
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "own.jsonl"


def test_answers_are_those_to_the_frames(loaded, path):
    model, processor = loaded
    items = read_questions(path)
    assert len({item.image_id for item in items}) == 3
    found = answer(model, processor, items, None, 4)
    assert [one.visual_tokens for one in found] == [2 * FRAME_TOKENS, IMAGE_TOKENS, 2 * FRAME_TOKENS]
    # Without anything of vistrim's before the model.
    frames = [Image.open(path.parent / name) for name in ("b.png", "a.png")]
    ids = processor.tokenizer("<video>" * (2 * FRAME_TOKENS) + "what", return_tensors="pt")
    alone = BatchFeature({**ids, "pixel_values_videos": processor._pixels(frames)[None]})
    assert answer_inputs(model, processor, alone, None, max_new_tokens=4)[0].answer == found[2].answer

    # The same through tables, which may be sent to other processes.
    predictor = Predictor("film", max_new_tokens=4)
    predictor._loaded = (model, processor, None)
    (rows,) = in_process(3)(predictor, items)
    assert [outcome(row) for row in rows] == found
    assert rows[0].keys() == rows[1].keys()
    table = columns(items)
    assert (table["image"][0], table["video"][1]) == (None, None)
    wrong = predictor({"prompt": ["what"] * 2, "image": [table["image"][1], None], "video": [table["video"][0], []]})
    assert "an image and a video" in wrong["error"][0]
    assert "no image" in wrong["error"][1]


@pytest.mark.slow
def test_every_command_shows_videos(loaded, path, monkeypatch, undrawn):
    monkeypatch.setattr(library, "load", lambda *_, **__: loaded)
    monkeypatch.setattr("vistrim.loading.load", lambda *_, **__: loaded)
    monkeypatch.setattr(searching, "WIDTHS", (2, 1, 1, 1))
    monkeypatch.setattr(searching, "NEW", (0, 0, 0, 0))
    data, short = ("--data", str(path)), ("--max-new-tokens", "2")
    many = path.with_name("many.jsonl")
    many.write_text(f"{path.read_text()}\n" * 4)
    search = (*data, *short, "--objective", "agreement")
    for name, *arguments in (
        ("eval", "--method", METHOD, *data, *short),
        ("batch", str(path), "--method", METHOD, *short),
        ("bench", "--method", METHOD, *data, "--batch", "3", "--new-tokens", "2", "--repeat", "1"),
        ("analyze", *data, *short, "--layers", "1"),
        ("calibrate", "st3", *data, *short, "--budget", "flops=0.9", "--prompts", "3"),
        ("calibrate", "gsearch", *search, "--group", "4"),
        ("calibrate", "psigmoid", *search, "--budget", "tokens=0.5", "--trials", "1"),
        ("calibrate", "yopo", *data),
        ("calibrate", "dyvte", "--data", str(many), "--width", "4", "--epochs", "1"),
    ):
        out = path.parent / "-".join([name, *arguments[:1]]).replace("/", "")
        result = vistrim(name, *arguments, "--model", "film", "--out", str(out))
        assert result.exit_code == 0, (name, arguments, result.stderr)


def test_models_without_videos_are_named(checkpoint, path):
    model, processor = library.load(checkpoint)
    with pytest.raises(InputError, match="takes no videos"):
        library.evaluate(model, processor, [METHOD], path)
    video, image, _ = read_questions(path)
    with pytest.raises(PromptError, match="takes no videos"):
        answer(model, processor, [video], None, 2)
    errors = Predictor(checkpoint, max_new_tokens=2)(columns([video, image]))["error"]
    assert "takes no videos" in errors[0]
    assert not errors[1]
    out = ("--out", str(path.parent / "out"))
    assert "takes no videos" in error_line(vistrim("bench", "--model", checkpoint, "--data", str(path), *out))

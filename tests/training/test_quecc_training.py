from dataclasses import replace

import pytest
import torch
import typer
from torch.nn import functional
from typer.testing import CliRunner

import vistrim
from training.reference.batches import IGNORED, SceneBatcher
from training.reference.export import export, load_learner
from training.reference.model import Size
from training.reference.quecc_learner import CompressedLearner, stride_for
from training.reference.train import new_learner as new_reference
from training.reference.train_quecc import RECIPE, CompressionRun, export_compressed, main, new_learner
from vistrim import QueCC, trim
from vistrim.reference.processing import build_processor, chat
from vistrim.reference.rendering import render
from vistrim.reference.scenes import LEVELS, generate_scene
from vistrim.reference.tasks import TASKS

pytestmark = pytest.mark.slow

TINY = Size(width=32, heads=2, feed_forward=32, layers=3, tower_width=32, tower_layers=3)
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def exported(processor, tmp_path_factory):
    """Weights of a tiny model to start from."""
    folder = tmp_path_factory.mktemp("tiny")
    reference = new_reference(TINY, processor, seed=1)
    reference.model.generation_config.max_length = None
    export(reference, processor, folder, folder.with_suffix(".safetensors"))
    return folder


@pytest.mark.parametrize("stage", RECIPE, ids=lambda stage: stage.name)
def test_an_interrupted_stage_ends_with_the_same_weights(stage, processor, exported, tmp_path):
    stage = replace(stage, steps=4, images=2, questions=2, described=0.0)

    def run(name):
        return CompressionRun(new_learner(exported, processor, 16, 0), processor, stage, tmp_path / name)

    whole, first = run("whole.pt"), run("broken.pt")
    for _ in range(4):
        whole.advance(DEVICE)
    for _ in range(2):
        first.advance(DEVICE)
    first.save()
    second = run("broken.pt")
    second.resume()
    for _ in range(2):
        second.advance(DEVICE)
    expected, before = whole.module.state_dict(), new_learner(exported, processor, 16, 0).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.module.state_dict().items())
    changed = {name for name, value in expected.items() if not torch.equal(value, before[name])}
    tunes = any("language_model.layers" in name for name in changed)
    assert tunes == stage.tunes_decoder
    assert all(name.startswith(("compressor.", "learner.model.model.language_model")) for name in changed)
    assert not any("embed" in name for name in changed)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [4, 16])
def test_packed_questions_train_as_generation_under_quecc_computes(tokens, processor, exported, tmp_path):
    """Loss of a packed row == loss of every question alone, on the exported model that `QueCC` trims."""
    learner = new_learner(exported, processor, tokens, 0)
    folder = tmp_path / "tiny-quecc"
    export_compressed(learner, processor, folder)
    learner.load_state_dict({name: value.bfloat16().float() for name, value in learner.state_dict().items()})
    batch = SceneBatcher(processor, LEVELS["several"], 1, tuple(TASKS), 5, 1.0, pixels=True).batch(7)
    packed = learner.answer_loss(batch)[0]

    model, _ = vistrim.load(folder, device="cpu")
    total, number = 0.0, 0
    for segment in batch.segments[0].unique():
        here = batch.segments[0] == segment
        text, labels = batch.tokens[0][here], batch.labels[0][here]
        opening = int((labels != IGNORED).nonzero()[0])
        prompt = processor.apply_chat_template(
            chat(processor.tokenizer.decode(text[:opening])), add_generation_prompt=True
        )
        picture = render(generate_scene("train", 7, LEVELS["several"]))
        ids = processor(images=picture, text=prompt, return_tensors="pt")["input_ids"][0]
        answer = labels[labels != IGNORED]
        # Labels tell the engine where the answer begins.
        ids = torch.cat([ids, answer])
        given = torch.where(torch.arange(len(ids)) < len(ids) - len(answer), IGNORED, ids)[None]
        with trim(model, QueCC()) as run:
            logits = model(input_ids=ids[None], pixel_values=batch.pixels, labels=given).logits[0]
        assert run.report.visual_tokens_per_layer[0] == [tokens]
        total += functional.cross_entropy(logits[-len(answer) - 1 : -1], answer, reduction="sum").item()
        number += len(answer)
    assert packed.item() == pytest.approx(total / number, rel=1e-4)


@torch.no_grad()
def test_a_compressor_starts_as_the_mean_of_each_blocks_projected_features(processor, exported):
    learner = CompressedLearner(load_learner(exported, processor), 16)
    pixels = SceneBatcher(processor, LEVELS["full"], 3, ("color",), 1, 0.0, pixels=True).batch(0).pixels
    learner.start_as_pooling(pixels)
    features, states = learner._see(pixels)
    made = learner.compressor(features, states, torch.zeros(3, 1, TINY.width))[:, 0]
    pooled = functional.avg_pool2d(features.transpose(1, 2).view(3, -1, 12, 12), 3).flatten(2).transpose(1, 2)
    expected = learner.learner.model.model.multi_modal_projector(pooled)
    assert functional.cosine_similarity(made, expected, dim=-1).mean() > 0.9


@pytest.mark.slow
def test_the_command_resumes_and_exports_a_model_that_quecc_loads(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("training.reference.validation.MAX_NEW_TOKENS", 2)
    monkeypatch.setattr("training.reference.train_quecc.RECIPE", [replace(s, images=2, described=0.0) for s in RECIPE])
    folder = tmp_path / "export"
    arguments = ["--tokens", "36", "--steps", "1/1", "--init", str(exported), "--out", str(tmp_path)]
    for more in (["--validate", "0"], ["--export-to", str(folder), "--validate", "1"]):
        app = typer.Typer()
        app.command()(main)
        result = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
        assert result.exit_code == 0
    assert "validation" in (tmp_path / "log.jsonl").read_text()
    model, _ = vistrim.load(folder, device="cpu")
    with trim(model, QueCC()):
        pass
    (folder / "vistrim" / "quecc.safetensors").unlink()
    with pytest.raises(ValueError, match="train_quecc"), trim(model, QueCC()):
        pass


def test_impossible_numbers_of_tokens_are_refused():
    assert [stride_for(n) for n in (1, 4, 9, 16, 36)] == [12, 6, 4, 3, 2]
    with pytest.raises(ValueError, match="1, 4, 9, 16, 36"):
        stride_for(25)

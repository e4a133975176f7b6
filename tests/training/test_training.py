from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
import typer
from safetensors.torch import load_file
from torch.nn import functional
from typer.testing import CliRunner

from tests.closeness import close
from training.reference.batches import IGNORED, PATCH_FACTS, EasyVqaBatcher, SceneBatcher, patch_facts
from training.reference.export import export, load_learner
from training.reference.learner import some_patches
from training.reference.model import Size, deepen, raise_layers
from training.reference.optimizer import orthogonalized
from training.reference.recipe import RECIPE
from training.reference.train import STATES, StageRun, main, new_learner, rearrange_layers
from vistrim.reference.processing import GRID, build_processor, chat
from vistrim.reference.rendering import render
from vistrim.reference.scenes import LEVELS, generate_scene
from vistrim.reference.tasks import TASKS, ask

TINY = Size(width=32, heads=2, feed_forward=32, layers=3, tower_width=32, tower_layers=1)
PLACES = torch.arange(GRID * GRID)[None]
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def tiny_learner(processor):
    learner = new_learner(TINY, processor, seed=1)
    learner.model.generation_config.max_length = None
    return learner


def tiny_stage(part):
    stage = next(s for s in RECIPE if s.part == part)
    return replace(stage, steps=4, batch=2, questions=3, layers=stage.layers and 2)


@pytest.mark.parametrize("part", ["tower", "decoder", "layers", "projector", "sight", "all"])
def test_an_interrupted_stage_ends_with_the_same_weights(part, processor, tmp_path):
    whole = StageRun(tiny_learner(processor), processor, tiny_stage(part), tmp_path / "whole.pt")
    for _ in range(4):
        whole.advance(DEVICE)
    first = StageRun(tiny_learner(processor), processor, tiny_stage(part), tmp_path / "broken.pt")
    for _ in range(2):
        first.advance(DEVICE)
    first.save()
    second = StageRun(tiny_learner(processor), processor, tiny_stage(part), tmp_path / "broken.pt")
    second.resume()
    for _ in range(2):
        second.advance(DEVICE)
    expected = whole.learner.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.learner.state_dict().items())


@pytest.mark.slow
def test_a_finished_stage_can_still_be_exported(processor, tmp_path):
    arguments = ["--size", "small", "--stages", "together", "--steps", "1", "--out", str(tmp_path), "--validate", "0"]
    for export_to in ([], ["--export-to", str(tmp_path / "export")]):
        app = typer.Typer()
        app.command()(main)
        result = CliRunner().invoke(app, [*arguments, *export_to], catch_exceptions=False)
        assert result.exit_code == 0
    assert (tmp_path / "export" / "model.safetensors").exists()
    assert load_file(tmp_path / "state.safetensors")


def test_training_goes_on_from_exported_weights_and_their_state(processor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(tiny_learner(processor), processor, tmp_path / "mine", tmp_path / "kept.safetensors")
    app = typer.Typer()
    app.command()(main)
    arguments = ["--stages", "sight", "--steps", "1", "--init", "mine", "--out", "out"]
    refused = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert refused.exit_code == 2
    assert f"{STATES / 'mine.safetensors'}: set --init-state" in refused.output
    named = CliRunner().invoke(app, [*arguments, "--init-state", "kept.safetensors"], catch_exceptions=False)
    assert named.exit_code == 0
    STATES.mkdir(parents=True)
    Path("kept.safetensors").rename(STATES / "mine.safetensors")
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0


def test_a_stage_trains_its_part_and_nothing_else(processor, tmp_path):
    learner = tiny_learner(processor)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    StageRun(learner, processor, tiny_stage("projector"), tmp_path / "x.pt").advance(DEVICE)
    changed = {name for name, value in learner.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("multi_modal_projector" in name for name in changed)


@torch.no_grad()
def test_packed_questions_train_exactly_the_single_prompt_of_the_chat_template(processor):
    """Loss of a packed row == loss of every question alone through the processor and the stock forward pass."""
    learner = tiny_learner(processor)
    batcher = SceneBatcher(processor, LEVELS["several"], 1, tuple(TASKS), 5, 1.0, pixels=True)
    batch = batcher.batch(7)
    visual = learner.visual_tokens(learner.features(batch.pixels))
    packed = learner.answer_loss(visual, PLACES, batch)[0]

    total, number = 0.0, 0
    for segment in batch.segments[0].unique():
        here = batch.segments[0] == segment
        tokens, labels = batch.tokens[0][here], batch.labels[0][here]
        opening = int((labels != IGNORED).nonzero()[0])
        assert tokens[opening] == processor.tokenizer.convert_tokens_to_ids("<assistant>")
        prompt = processor.tokenizer.decode(tokens[:opening])
        text = processor.apply_chat_template(chat(prompt), add_generation_prompt=True)
        inputs = processor(images=render(generate_scene("train", 7, LEVELS["several"])), text=text, return_tensors="pt")
        ids = torch.cat([inputs["input_ids"][0], tokens[opening + 1 :]])[None]
        logits = learner.model(input_ids=ids, pixel_values=batch.pixels).logits[0]
        answer = labels[labels != IGNORED]
        total += functional.cross_entropy(logits[-len(answer) :], answer, reduction="sum").item()
        number += len(answer)
    assert packed.item() == pytest.approx(total / number, rel=1e-4)


@torch.no_grad()
def test_subjects_stand_at_the_last_word_of_the_prompt(processor):
    batch = SceneBatcher(processor, LEVELS["several"], 4, ("color", "lookup"), 4, 0.0, pixels=False).batch(1)
    named = batch.subjects[..., 0] > 0
    follows = batch.tokens[:, 1:][named[:, :-1]]
    assert len(follows)
    assert (follows == processor.tokenizer.convert_tokens_to_ids("<assistant>")).all()


def test_batches_depend_on_the_step_alone(processor):
    batcher = SceneBatcher(processor, LEVELS["several"], 2, ("color",), 2, 0.5, pixels=True)
    first, again, other = batcher.batch(5), batcher.batch(5), batcher.batch(6)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.facts, other.facts)


def test_patch_facts_name_the_objects_under_them():
    scene = generate_scene("train", 11, LEVELS["full"])
    facts = patch_facts(scene).reshape(GRID, GRID, len(PATCH_FACTS))
    for shape in scene.shapes:
        under = facts[int(shape.y * GRID), int(shape.x * GRID)]
        assert [values[i - 1] for values, i in zip(PATCH_FACTS.values(), under, strict=True)] == [
            getattr(shape, name) for name in PATCH_FACTS
        ]


def test_some_patches_keeps_all_shapes_in_order(processor):
    facts = SceneBatcher(processor, LEVELS["several"], 6, ("color",), 1, 0.0, pixels=False).batch(0).facts
    places = some_patches(facts, 5, torch.Generator().manual_seed(0))
    assert (places[:, 1:] > places[:, :-1]).all()
    kept = facts.gather(1, places[..., None].expand(-1, -1, facts.shape[-1]))
    assert torch.equal((kept[..., 0] > 0).sum(1), (facts[..., 0] > 0).sum(1))


@torch.no_grad()
@pytest.mark.parametrize(
    "rearrange", [lambda model: deepen(model, 2), lambda model: raise_layers(model, 1)], ids=["deepen", "raise_layers"]
)
def test_silent_layers_keep_the_output_of_the_first_layers(processor, rearrange):
    learner = tiny_learner(processor)
    decoder = learner.model.model.language_model
    ids = torch.randint(7, 60, (1, 9), generator=torch.Generator().manual_seed(0))
    decoder.config.num_hidden_layers = 2
    shallow = learner.model(input_ids=ids).logits
    decoder.config.num_hidden_layers = 3
    rearrange(learner.model)
    assert close(learner.model(input_ids=ids).logits, shallow)


@torch.no_grad()
def test_export_can_be_trained_further(processor, tmp_path):
    learner = tiny_learner(processor)
    rearrange_layers(learner, tiny_stage("decoder"))
    state = tmp_path / "state.safetensors"
    export(learner, processor, tmp_path / "weights", state)
    loaded = load_learner(tmp_path / "weights", processor, state)
    expected = learner.state_dict()
    assert all(torch.equal(value, expected[name].bfloat16().float()) for name, value in loaded.state_dict().items())
    without = load_learner(tmp_path / "weights", processor).state_dict()
    assert {name for name in expected if not torch.equal(without[name], loaded.state_dict()[name])} <= set(
        load_file(state)
    )


@torch.no_grad()
def test_words_added_since_an_export_get_embeddings_and_old_ones_keep_theirs(processor, tmp_path):
    older = build_processor()
    learner = new_learner(TINY, older, seed=1)
    learner.model.resize_token_embeddings(len(older.tokenizer) - 3)
    export(learner, older, tmp_path, tmp_path.with_suffix(".safetensors"))
    loaded = load_learner(tmp_path, processor)
    embeddings = loaded.model.get_input_embeddings().weight
    assert len(embeddings) == len(processor.tokenizer) == loaded.model.config.text_config.vocab_size
    assert loaded.model.lm_head.weight is embeddings
    old = learner.model.get_input_embeddings().weight
    assert torch.equal(embeddings[: len(old)], old.bfloat16().float())
    assert embeddings.isfinite().all()


def test_easy_vqa_batches_ask_every_question_and_know_no_facts(processor):
    batcher = EasyVqaBatcher(processor, 3)
    batch, again = batcher.batch(4), batcher.batch(4)
    assert torch.equal(batch.tokens, again.tokens)
    assert torch.equal(batch.pixels, again.pixels)
    assert batch.facts is None
    assert all(set(tasks) == {"easy-vqa"} and len(tasks) >= 5 for tasks in batch.tasks)
    assert not (batch.tokens == processor.tokenizer.unk_token_id).any()


def test_steps_mix_scenes_and_easy_vqa(processor, tmp_path):
    stage = replace(tiny_stage("all"), easy_vqa=0.5, steps=8)
    run = StageRun(tiny_learner(processor), processor, stage, tmp_path / "x.pt")
    logged = [run.advance(DEVICE) for _ in range(8)]
    easy = ["easy-vqa" in entry for entry in logged]
    assert any(easy)
    assert not all(easy)
    assert all(torch.isfinite(value).all() for value in run.learner.state_dict().values())


@pytest.mark.parametrize("shape", [(2, 16, 40), (2, 40, 16)])
def test_muon_updates_are_nearly_orthogonal(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_every_question_of_the_short_tasks_has_a_short_answer():
    scene = generate_scene("train", 0, LEVELS["full"])
    for task in TASKS:
        question = ask(task, scene, Random(0))
        assert question is None or task == "description" or len(question.answer.split()) <= 2

"""Single rows: text of tokens, stop strings, sampling."""

import time

import pytest
import torch

from vistrim.serving.detokenizing import Detokenizer
from vistrim.serving.rows import CANCELLED, EXPIRED, LENGTH, STOP, Row, withheld
from vistrim.serving.sampling import RowSampler, Sampling, nucleus

END = 0


class Letters:
    """Token 1 is "a"; token 30 is the first byte of a character, and 31 completes it."""

    def decode(self, tokens, skip_special_tokens):
        text = "".join(chr(96 + token) if token < 30 else {30: "\ufffd", 31: ""}[token] for token in tokens if token)
        return text.replace("\ufffd", "é") if 31 in tokens else text


def row(**settings):
    return Row(
        **{
            "limit": 20,
            "stops": (),
            "ends": frozenset([END]),
            "deadline": time.monotonic() + 60,
            "is_cancelled": lambda: False,
            "detokenizer": Detokenizer(Letters()),
        }
        | settings
    )


def take(made, *tokens):
    texts = []
    for token in tokens:
        made.take(token)
        texts.append(made.text)
    return texts


def test_a_row_ends_at_its_end_token_or_its_limit_and_takes_no_more():
    made = row()
    assert take(made, 1, 2, END, 3) == ["a", "ab", "ab", "ab"]
    assert (made.reason, made.tokens) == (STOP, [1, 2, END])
    made = row(limit=2)
    assert take(made, 1, 2, 3) == ["a", "ab", "ab"]
    assert made.reason == LENGTH


def test_text_that_may_begin_a_stop_string_is_withheld():
    made = row(stops=["cd", "bcx"])
    assert take(made, 1, 2, 3, 5, 3, 4, 1) == ["a", "a", "a", "abce", "abce", "abce", "abce"]
    assert made.reason == STOP
    # At the end, it is text after all.
    assert take(row(stops=["cd"]), 1, 3, END)[-1] == "ac"
    assert withheld("ab", []) == 0


def test_incomplete_characters_are_withheld():
    assert take(row(), 1, 30, 31, 2) == ["a", "a", "aé", "aéb"]
    assert take(row(limit=2), 1, 30) == ["a", "a\ufffd"]


def test_the_tokenizer_of_the_reference_model_gives_the_same_text_token_by_token():
    from tests.serving.running import loaded

    tokenizer = loaded()[1].tokenizer
    ids = tokenizer("what color is the star , and where is it ?", add_special_tokens=False)["input_ids"]
    made = Detokenizer(tokenizer)
    assert "".join([*map(made.add, ids), made.finish()]) == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_row_ends_when_its_client_goes_or_its_deadline_passes():
    for settings, reason in (({"is_cancelled": lambda: True}, CANCELLED), ({"deadline": time.monotonic()}, EXPIRED)):
        made = row(**settings)
        made.take(1)
        assert made.reason == reason
        assert not made.tokens


def test_the_nucleus_is_the_smallest_set_that_reaches_its_share():
    scores = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    for top_p, kept in ((0.4, [1]), (0.5, [1]), (0.6, [1, 3]), (0.8, [1, 2, 3]), (1.0, [0, 1, 2, 3]), (1e-9, [1])):
        assert nucleus(scores, top_p).isfinite().nonzero().flatten().tolist() == kept


def test_samples_follow_the_distribution_and_do_not_depend_on_other_rows():
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    scores = probabilities.log().expand(3, -1)
    rows = [Sampling(1.0, 1.0, seed=5), Sampling(), Sampling(2.0, 0.95, seed=-3)]
    together, alone = RowSampler(rows), [RowSampler([each]) for each in rows]
    draws = []
    for _ in range(300):
        chosen = together(None, scores).argmax(-1)
        draws.append(chosen)
        assert chosen.tolist() == [each(None, scores[:1]).argmax().item() for each in alone]
    share = torch.stack(draws)[:, 0].bincount(minlength=3) / len(draws)
    assert share.tolist() == pytest.approx(probabilities.tolist(), rel=0.5)
    assert set(torch.stack(draws)[:, 1].tolist()) == {0}
    assert torch.equal(scores, probabilities.log().expand(3, -1)), "scores of the model are not changed"

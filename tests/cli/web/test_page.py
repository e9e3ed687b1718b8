"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segzero_cli.web.examples import load_examples
from segzero_core.errors import ReasoningError
from segzero_core.testing.fakes import fake_segzero
from tests.cli.web.conftest import Served, needs_chromium, png
from tests.ros.scripted import NOTHING, THINKING, TWO_OBJECTS

expect = pytest.importorskip("playwright.sync_api", reason="there is no playwright").expect

FOUND = "2 objects found for “the red mug”."

pytestmark = [pytest.mark.slow, needs_chromium]


def open_file(page: Any, data: bytes, name: str = "table.png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})


def ask(page: Any, query: str = "the red mug") -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")


@pytest.fixture
def asked(serve: Callable, visit: Callable) -> Any:
    """A page with an answer."""
    page = visit(serve())
    open_file(page, png())
    ask(page)
    expect(page.locator("#status")).to_have_text(FOUND)
    return page


def test_a_first_click_on_an_example_leads_to_masks(serve: Callable, visit: Callable) -> None:
    page = visit(serve(examples=load_examples()))
    examples = page.locator("#examples button")

    expect(examples).to_have_count(6)
    expect(page.locator("#examples small")).to_have_text(["not in the image: must be refused"])
    examples.nth(2).click()
    expect(page.locator("#status")).to_contain_text("2 objects found")
    expect(page.locator("#legend li")).to_have_count(2)
    expect(page.locator("#legend")).to_contain_text("cm at")  # by the example's depth
    expect(page.locator("#space")).to_be_visible()


def test_the_reasoning_streams_word_by_word(serve: Callable, visit: Callable) -> None:
    page = visit(serve(delay_s=0.02))
    page.evaluate(
        """() => { window.seen = new Set();
        new MutationObserver(() => window.seen.add(document.getElementById("trace").textContent))
            .observe(document.getElementById("trace"), {childList: true}); }"""
    )
    open_file(page, png())
    ask(page)
    expect(page.locator("#status")).to_have_text(FOUND)
    seen = page.evaluate("[...window.seen]")

    growing = [text for text in seen if text and THINKING.startswith(text)]
    assert len(growing) > 10
    delay_ms = float(page.evaluate("document.documentElement.dataset.firstWordMs"))
    print(f"first word on the page {delay_ms} ms after the core had it")


def canvas_pixel(page: Any, x: int, y: int) -> list[int]:
    script = f"""[...document.getElementById("image").getContext("2d")
        .getImageData({x}, {y}, 1, 1).data].slice(0, 3)"""
    return page.evaluate(script)


def test_masks_are_drawn_lit_by_the_legend_and_switched_off(asked: Any) -> None:
    tinted = canvas_pixel(asked, 70, 90)
    asked.locator("#legend li").nth(1).hover()
    lit = canvas_pixel(asked, 70, 90)
    asked.locator("#legend li").nth(0).hover()
    dimmed = canvas_pixel(asked, 70, 90)
    asked.locator("#legend input").nth(1).uncheck()
    asked.locator("#query").hover()

    assert len({tuple(pixel) for pixel in (tinted, lit, dimmed)}) == 3
    assert canvas_pixel(asked, 70, 90) == [0, 0, 200]  # the image itself
    expect(asked.locator("#legend li").nth(0)).to_contain_text("score 1.00, 600 px")


def test_stages_model_and_hash_are_shown(asked: Any) -> None:
    expect(asked.locator("#times .ms")).to_have_count(5)
    expect(asked.locator("#identity")).to_contain_text("scripted 0000000000000000")
    expect(asked.locator("#identity")).to_contain_text("image encoder: fake")


def test_nothing_fits_is_said_plainly(serve: Callable, visit: Callable) -> None:
    page = visit(serve(NOTHING))
    open_file(page, png())
    ask(page, "fruit")

    expect(page.locator("#status")).to_have_text("Nothing in the image fits “fruit”.")
    expect(page.locator("#found")).to_be_hidden()


def test_png_and_json_are_saved(asked: Any, tmp_path: Path) -> None:
    for button, name in (("#save-png", "answer.png"), ("#save-json", "answer.json")):
        with asked.expect_download() as download:
            asked.click(button)
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
    result = json.loads((tmp_path / "answer.json").read_text())

    saved = np.array(Image.open(tmp_path / "answer.png"))
    assert saved.shape[1] == 100
    assert saved.shape[0] > 110  # question and thinking stand below the image
    assert saved[90, 70].tolist() != [0, 0, 200]  # a mask
    assert [each["area_px"] for each in result["objects"]] == [600, 1400]
    assert result["objects"][1]["mask_offset_xy"] == [50, 60]


def test_snippets_quote_what_was_asked(serve: Callable, visit: Callable) -> None:
    query, name = """Tom's "mug" $(id) \\ `x`""", "-it's.png"
    page = visit(serve())
    open_file(page, png(), name)
    ask(page, query)
    expect(page.locator("#status")).to_contain_text("2 objects found")
    copied = {}
    for kind in ("python", "shell", "ros2"):
        page.click(f"[data-copy={kind}]")
        copied[kind] = page.inner_text("#snippet")

    shell = shlex.split(copied["shell"])
    assert shell[:4] == ["segzero", "segment", f"./{name}", query]
    assert json.loads(shlex.split(copied["ros2"])[-1]) == {"query": query}
    called: list[Any] = []
    module = type("Fake", (), {"load": staticmethod(lambda name: Fake)})

    class Fake:
        @staticmethod
        def segment(*arguments: Any) -> None:
            called.extend(arguments)
            raise StopIteration

    body = copied["python"].partition("\n")[2]
    with pytest.raises(StopIteration):
        exec(body, {"SegZero": module, "load_image": lambda path: path})
    assert called == [name, query]


def test_history_brings_an_answer_back(asked: Any) -> None:
    ask(asked, "another")
    expect(asked.locator("#status")).to_contain_text("“another”")
    expect(asked.locator("#history button")).to_have_count(2)
    asked.locator("#history button").nth(1).click()

    expect(asked.locator("#status")).to_have_text(FOUND)
    expect(asked.locator("#query")).to_have_value("the red mug")


def test_cancel_by_button_and_by_key(serve: Callable, visit: Callable) -> None:
    page = visit(serve(delay_s=0.2))
    open_file(page, png())
    for cancel in (lambda: page.click("#cancel"), lambda: page.keyboard.press("Escape")):
        ask(page)
        expect(page.locator("#status")).to_have_text("Thinking…")
        cancel()
        expect(page.locator("#status")).to_have_text("Cancelled.")
        expect(page.locator("#ask")).to_be_enabled()


@pytest.mark.parametrize(
    ("data", "name", "sentence"),
    [
        pytest.param(b"a text", "image.png", "The file is not an image", id="a text"),
        pytest.param(png()[:200], "cut.png", "The image is damaged", id="cut off"),
    ],
)
def test_garbage_is_a_sentence_and_the_page_goes_on(
    serve: Callable, visit: Callable, data: bytes, name: str, sentence: str
) -> None:
    page = visit(serve())
    open_file(page, data, name)
    expect(page.locator("#status")).to_contain_text(sentence)
    open_file(page, png())
    ask(page)
    expect(page.locator("#status")).to_have_text(FOUND)


def test_a_file_over_the_limit_is_not_sent(
    serve: Callable, visit: Callable, tmp_path: Path
) -> None:
    page = visit(serve())
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(41_000_000)
    page.set_input_files("#file", tmp_path / "huge.png")
    expect(page.locator("#status")).to_contain_text("The file has 41 MB")


def test_an_empty_question_and_a_missing_image_are_sentences(
    serve: Callable, visit: Callable
) -> None:
    page = visit(serve())
    ask(page, "  ")
    expect(page.locator("#status")).to_contain_text("The question is empty")
    ask(page)
    expect(page.locator("#status")).to_contain_text("There is no image yet")


def test_a_failure_is_a_sentence(serve: Callable, visit: Callable) -> None:
    page = visit(serve([ReasoningError("the reasoner is down"), TWO_OBJECTS]))
    open_file(page, png())
    ask(page)
    expect(page.locator("#status.bad")).to_have_text("The reasoner is down")
    ask(page)
    expect(page.locator("#status")).to_have_text(FOUND)


def test_an_image_is_dropped_and_pasted(serve: Callable, visit: Callable) -> None:
    page = visit(serve())
    give = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "given.png", {type: "image/png"}));
        const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data})
            : new DragEvent("drop", {dataTransfer: data, bubbles: true});
        document.body.dispatchEvent(event);
        if (kind === "paste") document.dispatchEvent(event);
    }"""
    for kind, width in (("drop", 120), ("paste", 140)):
        page.evaluate(give, [kind, list(png((width, 100)))])
        expect(page.locator("#image")).to_have_js_property("width", width)


def test_a_rotation_by_exif_is_shown(serve: Callable, visit: Callable) -> None:
    from tests.cli.web.test_server import rotated

    page = visit(serve())
    for kind in ("JPEG", "PNG", "TIFF"):
        open_file(page, png())
        expect(page.locator("#image")).to_have_js_property("width", 100)
        open_file(page, rotated(kind), f"turned.{kind}")
        expect(page.locator("#image")).to_have_js_property("width", 20)
        assert canvas_pixel(page, 10, 10)[0] > 150  # what was left is above


def test_a_webcam_that_is_refused_is_a_sentence(serve: Callable, visit: Callable) -> None:
    page = visit(serve())  # no permission was given, and headless Chromium asks nobody
    page.click("#webcam-start")
    expect(page.locator("#status.bad")).to_contain_text("open an image file")


def test_an_image_of_the_webcam_is_asked_about(serve: Callable, visit: Callable) -> None:
    page = visit(serve(), permissions=["camera"])
    page.click("#webcam-start")
    page.click("#webcam-shot")
    expect(page.locator("#webcam")).to_be_hidden()
    expect(page.locator("#query")).to_be_focused()
    assert page.evaluate("document.getElementById('image').width") > 300
    ask(page)
    expect(page.locator("#status")).to_have_text(FOUND)


def test_two_people_and_a_second_tab_see_their_own_answers_only(
    serve: Callable, visit: Callable
) -> None:
    server = serve(delay_s=0.02)
    first = visit(server)
    people = [first, visit(server), visit(server, first.context)]
    for number, page in enumerate(people):
        open_file(page, png((100 + number, 100)))
    for number, page in enumerate(people):
        ask(page, f"mug {number}")
    for number, page in enumerate(people):
        expect(page.locator("#status")).to_have_text(f"2 objects found for “mug {number}”.")
        expect(page.locator("#image")).to_have_js_property("width", 100 + number)
        expect(page.locator("#history button")).to_have_count(1)


def test_the_page_goes_on_after_the_server_was_away(serve: Callable, visit: Callable) -> None:
    import uvicorn

    from segzero_cli.web.answers import LocalModel
    from segzero_cli.web.app import make_app
    from segzero_cli.web.command import bind

    listening = bind("127.0.0.1", 0)
    app = make_app({"scripted": LocalModel("scripted", {}, fake_segzero(TWO_OBJECTS))}, {})
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    port = listening.getsockname()[1]
    page = visit(Served(port))
    open_file(page, png())
    server.should_exit = True
    thread.join()
    ask(page)
    expect(page.locator("#status")).to_contain_text("The server does not answer")
    serve(port=port)
    expect(page.locator("#state")).to_have_text("scripted: ready")
    ask(page)
    expect(page.locator("#status")).to_have_text(FOUND)


def test_everything_can_be_done_by_keyboard(serve: Callable, visit: Callable) -> None:
    page = visit(serve(examples=load_examples()))
    page.locator("#examples button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("2 objects found")
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    page.locator("#legend input").first.focus()
    page.keyboard.press("Space")
    expect(page.locator("#legend input").first).not_to_be_checked()
    page.locator("#cloud").focus()
    before = page.locator("#cloud").screenshot()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.locator("#cloud").screenshot() != before


def test_a_screen_reader_finds_names_for_everything(asked: Any) -> None:
    tree = asked.locator("body").aria_snapshot()

    assert 'img "2 objects found for “the red mug”."' in tree
    for name in ('textbox "Question"', 'button "Ask"', 'combobox "Model"', "log"):
        assert name in tree
    assert re.search(r'checkbox "Object 1: score 1.00, 600 px" \[checked\]', tree)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in_both_schemes(
    serve: Callable, visit: Callable, scheme: str
) -> None:
    page = visit(serve(), color_scheme=scheme)
    colors = page.evaluate(
        """() => ["--text", "--soft", "--bad"].flatMap((front) => ["--page", "--card", "--shade"]
        .map((back) => [front, back].map((name) => {
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.color = `var(${name})`;
            return getComputedStyle(probe).color.match(/\\d+/g).map(Number); })))"""
    )

    def luminance(color: list[int]) -> float:
        parts = [value / 255 for value in color]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for front, back in colors:
        low, high = sorted((luminance(front), luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA

"""The demo in headless Chromium."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from urllib.parse import urlencode, urlsplit

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import vistrim
from tests.serving.running import IMAGES, application, image_url, message, scene, server
from tests.serving.test_http import Client
from vistrim.engine.report.trace import Trace
from vistrim.serving.limits import Limits

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
SECONDS = 60
QUESTION = "describe the image ."
METHODS = ({"method": "st3", "budget": "tokens=0.5"}, {"method": "divprune:keep=0.25"})

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def app():
    # A short horizon, so that the short answers of a small model show it.
    served = {"st3": vistrim.ST3(horizon=8, floor=0.2, interval=1)}
    with application(limits=Limits(trace=True), served=served, demo=True) as made:
        yield made


@pytest.fixture(scope="module")
def url(app):
    with server(app) as made:
        yield made


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as made:
        yield made


class Page:
    """The open demo."""

    def __init__(self, browser, url, **settings):
        self.browser = browser
        chosen = [
            ("method", "@".join([each["method"], *([each["budget"]] if "budget" in each else [])])) for each in METHODS
        ]
        values = {"question": QUESTION, "image": "scene-1.png", "tokens": 24, "rounds": 1} | settings
        # Changes of the part after # alone load no page.
        browser.get("about:blank")
        browser.get(f"{url}/demo#{urlencode([*values.items(), *chosen])}")
        self.until(lambda: self.all("#methods li") and self["chosen"].get_attribute("src"))

    def __getitem__(self, element):
        return self.browser.find_element(By.ID, element)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition):
        WebDriverWait(self.browser, SECONDS).until(lambda _: condition())

    def run(self):
        self["run"].click()
        self.until(lambda: self["status"].text.startswith("Done") or self.has_failed)
        assert not self.has_failed, self["status"].text

    @property
    def has_failed(self):
        return "error" in self["status"].get_attribute("class")

    def move(self, slider, value):
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.browser.execute_script(script, self[slider], value)

    def pictures(self):
        return self.browser.execute_script(
            "return [...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"
        )

    def counts(self):
        return [int(each.text.split()[0]) for each in self.all(".count")]


def requested_hosts(browser):
    """Hosts of all requests since the last call."""
    entries = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
    return {urlsplit(found).hostname for found in urls if urlsplit(found).scheme not in ("data", "blob")}


def test_a_comparison_shows_what_the_api_answers(app, url, browser):
    page = Page(browser, url)
    page.run()
    asked = message(QUESTION, image_url(scene(1)))
    for number, options in enumerate(METHODS, 1):
        answer = Client(app).chat(asked, max_tokens=24, seed=0, vistrim=options | {"trace": True}).json()
        figures = answer["vistrim"]
        trace = Trace.from_dict(figures["trace"])
        assert page.all(".answer")[number].text == answer["choices"][0]["message"]["content"].strip()
        assert page.all(".ran")[number].text == figures["method"]
        page.move("step", 0)
        for layer, expected in enumerate(figures["visual_tokens_per_layer"]):
            page.move("layer", layer)
            assert page.counts()[number] == expected
            page.move("step", trace.steps)
            assert page.counts()[number] == len(trace.kept(0, layer, trace.steps))
            page.move("step", 0)
        mean = f"{round(figures['average_tokens'], 1):g} of {figures['visual_tokens']}"
        assert page.all("#table tbody tr")[0].find_elements(By.TAG_NAME, "td")[number].text == mean
    assert page.counts()[0] == figures["visual_tokens"]
    assert all("ms" in each.text or each.text.endswith(" s") for each in page.all(".bars .value"))
    assert browser.execute_script("return document.querySelectorAll('#chart polyline').length") == 2 * 3
    assert requested_hosts(browser) == {"127.0.0.1"}
    assert browser.get_log("browser") == []


def test_sliders_change_the_pictures_and_work_with_keys(url, browser):
    page = Page(browser, url, rounds=0)
    page.run()
    first = page.pictures()
    assert len(first) == 3
    page["layer"].send_keys(Keys.END)
    last = page.pictures()
    assert first[0] == last[0]
    assert first[1] != last[1]
    page["step"].send_keys(Keys.END)
    assert page.pictures()[1] != last[1]
    assert page["step"].get_attribute("aria-valuetext") == page["step-text"].text
    page["step-play"].send_keys(Keys.SPACE)
    page.until(lambda: page["step"].get_property("value") not in ("0", page["step"].get_property("max")))
    page["step-play"].send_keys(Keys.SPACE)
    assert page["step-play"].get_attribute("aria-pressed") == "false"


def test_the_code_sends_the_same_request(url, browser):
    # Characters that the shell, Python or JSON would read as their own.
    page = Page(browser, url, rounds=0, question='say "$HOME" `date` \\ it\'s ${x} \u00e9')
    page.run()
    shown = page.all(".answer")[1].text
    python, curl = (
        code.get_attribute("textContent") for code in page.all(".column")[1].find_elements(By.TAG_NAME, "pre")
    )
    commands = {"curl": ["bash", "-c", curl], "openai": [sys.executable, "-c", python]}
    for needed, command in commands.items():
        if shutil.which(needed) or find_spec(needed):
            done = subprocess.run(command, cwd=IMAGES, capture_output=True, text=True, timeout=SECONDS)
            assert done.returncode == 0, done.stderr
            printed = json.loads(done.stdout)["choices"][0]["message"]["content"] if needed == "curl" else done.stdout
            assert shown in printed


def test_an_own_image_is_answered_and_errors_are_told(url, browser):
    page = Page(browser, url, rounds=0)
    page["file"].send_keys(str(IMAGES / "scene-2.png"))
    page.until(lambda: page["chosen-name"].text == "scene-2.png")
    # The server's own method has no such parameter, and the other answers do not suffer.
    page.all("#methods input")[3].clear()
    page.all("#methods input")[2].clear()
    page.all("#methods input")[2].send_keys("keep=-1")
    page.run()
    assert "keep" in page.all(".answer.error")[0].text
    assert len(page.pictures()) == 2
    # The refused request is the only complaint of the browser.
    assert {"400" in entry["message"] for entry in browser.get_log("browser")} == {True}
    assert "keep%3D-1" in browser.current_url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_every_control_has_a_name(url, browser, scheme):
    sizes = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        page = Page(browser, url, rounds=0)
        page.run()
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness = int(color.removeprefix("rgb(").split(",")[0])
        assert (brightness < 128) == (scheme == "dark")
        controls = [each for each in page.all("button, input, select") if each.is_displayed()]
        assert len(controls) > 15
        assert [each.get_attribute("outerHTML") for each in controls if not each.accessible_name] == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

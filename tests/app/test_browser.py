"""The page in a real browser, as a person uses it."""

import contextlib
import dataclasses
import os
import shutil
import threading
import time
import zlib

import flask
import numpy as np
import pandas as pd
import pytest
import waitress
from PIL import Image

from cxrkeras.app.server import create_app, make_server
from cxrkeras.labels import NIH, NO_FINDING, LabelSet
from cxrkeras.predict.predictor import Answer
from cxrkeras.text import num_of

pytestmark = pytest.mark.browser
WIDTHS = (400, 1000, 1400)

# The contrast of each visible text against the nearest ground that is drawn behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """
const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const low = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.textContent.trim(), own = walk.currentNode.parentElement;
  if (!text || !own.checkVisibility() || own.closest("script, style, footer")) continue;
  let ground = own;
  while (ground.parentElement && (parse(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) {
    ground = ground.parentElement;
  }
  const colours = [getComputedStyle(own).color, getComputedStyle(ground).backgroundColor];
  const [a, b] = colours.map((colour) => light(parse(colour).slice(0, 3)));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) low.push(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
}
return low;
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium without a window; skips, or fails where BROWSER=required, if there is none."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    program = shutil.which("chromedriver")
    if not (browser and program):
        text = "no chromium and chromedriver here: `apt-get install chromium chromium-driver`"
        (pytest.fail if os.environ.get("BROWSER") == "required" else pytest.skip)(text)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(argument)
    folder = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(program))
    driver.downloads = folder
    yield driver
    driver.quit()


@contextlib.contextmanager
def serve(app):
    """Serve an app; the address."""
    server = make_server(app, "127.0.0.1", 0)
    assert isinstance(server, waitress.server.BaseWSGIServer)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}/"
    server.close()


@pytest.fixture(scope="module")
def traffic():
    """Path and bytes of each request to `address`."""
    return []


@pytest.fixture(scope="module")
def address(predictor, traffic):
    app = create_app(predictor)

    @app.before_request
    def count():
        traffic.append((flask.request.path, flask.request.content_length or 0))

    with serve(app) as address:
        yield address


class Oracle:
    """A predictor with any labels, whose answers are drawn at random, the same for the same image."""

    def __init__(self, facts, labels, warnings=()):
        thresholds = dict.fromkeys(labels, 0.4)
        self.facts = dataclasses.replace(facts, labels=labels, thresholds=thresholds, unseen=labels.names[2:3])
        self.warnings = warnings

    def answer(self, grey, *, with_maps=False, warnings=()):
        rng = np.random.default_rng(zlib.crc32(grey.tobytes()))
        probs = dict(zip(self.facts.labels, rng.random(len(self.facts.labels)).tolist(), strict=True))
        found = tuple(label for label in sorted(probs, key=probs.get, reverse=True) if probs[label] >= 0.4)
        maps = rng.random((len(probs), 4, 4)) if with_maps else None
        return Answer(probs, found, (*warnings, *self.warnings), *grey.shape[::-1], maps)


@pytest.fixture(scope="module")
def uploads(phantom_folder, tmp_path_factory):
    """Two radiographs and a file that is not an image."""
    folder = tmp_path_factory.mktemp("uploads")
    for path in sorted((phantom_folder / "images").iterdir())[:2]:
        shutil.copy(path, folder)
    (folder / "broken <b>.png").write_bytes(b"no image")
    return sorted(folder.iterdir())


@contextlib.contextmanager
def visit(driver, address):
    """Open the page at an address, and look afterwards whether anything failed in it."""
    driver.get(address)
    wait(lambda: find(driver, "#files"))
    yield driver
    severe = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    severe = [message for message in severe if "beforeunload" not in message]  # the driver leaves without a gesture
    assert severe == []  # the content policy forbids nothing that the page needs, and no script fails


@pytest.fixture
def page(driver, address):
    with visit(driver, address):
        yield driver


def wait(condition, seconds=30):
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception as error:  # an element that was drawn again meanwhile
            last = error
        else:
            last = None
        time.sleep(0.05)
    raise AssertionError(f"not so within {seconds} seconds: {last}")


def find(driver, selector):
    return driver.find_elements("css selector", selector)


def text_of(driver, selector):
    return find(driver, selector)[0].text


def upload(page, paths):
    find(page, "#files")[0].send_keys("\n".join(map(str, paths)))
    wait(lambda: text_of(page, "#state").startswith(f"{len(paths)} of {num_of(len(paths), 'file')} answered"))
    wait(lambda: len(find(page, "#rows tr")) == len(paths))


def open_first(page, labels=NIH):
    wait(lambda: find(page, "[data-open]"))[0].click()
    wait(lambda: find(page, "#image-a img.grey"))
    for button in find(page, "[data-override]"):  # a small network may take a phantom for something else
        button.click()
    wait(lambda: len(find(page, "#labels input")) == len(labels))


def choose(page, text):
    """Choose an option of the dropdown that is open."""

    def click():
        options = find(page, ".dash-dropdown-content [role=option]")
        next(option for option in options if text in option.text).click()
        return True

    wait(click)  # a list that is drawn again meanwhile is read again


def downloaded(page, ending):
    return wait(lambda: next((path for path in page.downloads.iterdir() if path.name.endswith(ending)), None))


def test_the_notice_is_there_before_anything_is_uploaded(page):
    assert "not a medical device" in text_of(page, ".notice")
    assert "synthetic phantoms" in text_of(page, ".banner")
    assert not find(page, "#overview")[0].is_displayed()


def test_upload_list_detail_label_opacity_and_csv(page, uploads):
    upload(page, uploads)
    assert "1 of them not readable" in text_of(page, "#state")
    names = [cell.text for cell in find(page, "#rows .name")]
    assert names == [path.name for path in uploads]
    broken = next(row for row in find(page, "#rows tr") if "broken" in row.text)
    assert "not a PNG, JPEG or DICOM image" in broken.text
    assert all(image.get_property("naturalWidth") > 0 for image in find(page, "#rows img"))

    open_first(page)
    assert not find(page, "#overview")[0].is_displayed()
    numbers = [number.text for number in find(page, "#labels .number")]
    assert len(numbers) == 15
    findings = [float(text.strip("<> %")) for text in numbers[:-1]]
    assert findings == sorted(findings, reverse=True)
    assert find(page, "#labels input")[-1].get_property("value") == NO_FINDING  # apart, whatever its probability
    other = find(page, "#labels input")[5]
    label = other.get_property("value")
    other.click()
    wait(lambda: label.replace("_", " ") in text_of(page, "#caption-a"))
    for tile in find(page, ".tile"):
        tile.click()
        name = tile.get_attribute("data-label").replace("_", " ")
        wait(lambda name=name: name in text_of(page, "#caption-a"))
        assert find(page, "#labels input:checked")[0].get_property("value").replace("_", " ") == name

    slider = find(page, "#opacity")[0]
    before = page.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--heat')")
    slider.send_keys("\ue014" * 10)  # the right arrow
    after = page.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--heat')")
    assert float(after) == pytest.approx(float(before) + 0.1)

    find(page, "#back")[0].click()
    wait(lambda: find(page, "#csv")[0].is_displayed())
    find(page, "#csv")[0].click()
    table = pd.read_csv(downloaded(page, ".csv"))
    assert table["file"].tolist() == [path.name for path in uploads]
    assert table["problem"].notna().sum() == 1
    assert table[[f"prob_{label}" for label in NIH.names]].notna().all(axis=1).sum() == 2


def test_a_picture_and_a_report_can_be_saved(page, uploads):
    upload(page, uploads[:2])
    open_first(page)
    find(page, "#save-picture")[0].click()
    with Image.open(downloaded(page, ".png")) as picture:
        assert picture.width == 1024
        assert picture.height > 1024  # the notice is beneath
    find(page, "#save-report")[0].click()
    assert "not a medical device" in downloaded(page, "-report.html").read_text()


def test_a_heat_map_covers_an_image_that_is_not_square(page, uploads, tmp_path):
    with Image.open(uploads[0]) as image:
        grey = image.convert("L").resize((64, 64))
    wide = [tmp_path / f"wide{top}.png" for top in (0, 8, 16, 24)]
    for path, top in zip(wide, (0, 8, 16, 24), strict=True):
        grey.crop((0, top, 64, top + 40)).save(path)
    upload(page, wide)
    open_first(page)
    for path in wide:  # until one has a map with evidence: a network of so few steps has many without
        wait(lambda path=path: path.name in text_of(page, "#caption-a"))
        for button in find(page, "[data-override]"):  # it may be unlike the training images
            button.click()
        wait(lambda: find(page, "#labels input"))
        for choice in find(page, "#labels input"):
            choice.click()
            name = choice.get_property("value").replace("_", " ")
            wait(lambda name=name: name in text_of(page, "#caption-a"))
            if find(page, "#image-a .heat"):
                break
        if find(page, "#image-a .heat") or path == wide[-1]:
            break
        find(page, "body")[0].send_keys("n")
    rectangles = [layer.rect for layer in find(page, "#image-a img")]
    assert rectangles[0]["width"] / rectangles[0]["height"] == pytest.approx(64 / 40, rel=0.01)
    assert rectangles == [rectangles[0]] * 2


def test_uploads_resume_once_the_server_is_back(page, uploads):
    page.execute_cdp_cmd("Network.enable", {})
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.execute_cdp_cmd("Network.emulateNetworkConditions", conditions | {"offline": True})
    find(page, "#files")[0].send_keys("\n".join(map(str, uploads)))
    wait(lambda: find(page, "#offline")[0].is_displayed())
    page.execute_cdp_cmd("Network.emulateNetworkConditions", conditions | {"offline": False})
    wait(lambda: text_of(page, "#state") == "3 of 3 files answered, 1 of them not readable")
    assert not find(page, "#offline")[0].is_displayed()
    page.get_log("browser")  # of the time without a server


def test_two_images_side_by_side(page, uploads):
    upload(page, [path for path in uploads if "broken" not in path.name])
    open_first(page)
    find(page, "#compare")[0].click()
    wait(lambda: find(page, ".dash-dropdown-content [role=option]"))[0].click()
    wait(lambda: find(page, "#image-b img.grey") and find(page, "#pane-b")[0].is_displayed())
    for _ in range(2):  # a small network may take both phantoms for something else
        for button in find(page, "[data-override]")[:1]:
            button.click()
            time.sleep(0.5)
    wait(lambda: len(find(page, "#labels .bar-row")) == 30)
    assert "Upper bars: 00000001_000.png. Lower bars: " in text_of(page, "#compared")


def test_the_list_is_sorted_and_filtered(page, uploads):
    upload(page, uploads)
    find(page, "[data-sort=name]")[0].click()
    wait(lambda: find(page, "#head-name")[0].get_attribute("aria-sort") == "ascending")
    find(page, "#search")[0].send_keys("broken")
    wait(lambda: text_of(page, "#count") == "1 of 3 images")
    find(page, "#search")[0].send_keys("\ue003" * 6)
    wait(lambda: text_of(page, "#count") == "3 of 3 images")
    find(page, "#show")[0].click()
    choose(page, "not readable")
    wait(lambda: text_of(page, "#count") == "1 of 3 images")


def make_result(number, name, **probs):
    rows = [
        {"label": label, "probability": prob, "threshold": 0.5, "is_found": prob >= 0.5}
        for label, prob in sorted(probs.items(), key=lambda pair: -pair[1])
    ]
    return {"id": number, "name": name, "labels": rows, "warnings": [], "width": 9, "height": 9}


RESULTS = [
    make_result(1, "b.png", Mass=0.2, Edema=0.6, Normal=0.99),
    make_result(2, "A.png", Mass=0.7, Edema=0.55, Normal=0.1),
    make_result(3, "c.png", Mass=0.1, Edema=0.9, Normal=0.1) | {"warnings": ["it is blank"], "isOverridden": True},
    {"id": 4, "name": "d.png", "problem": {"detail": "empty"}},
    {"id": 5, "name": "e.png", "state": "waiting"},
]
WITHHELD = [result | {"isOverridden": False} for result in RESULTS]


@pytest.mark.parametrize(
    ("results", "text", "kind", "sort", "expected"),
    [
        (RESULTS, "", "all", "order", [1, 2, 3, 4, 5]),
        (RESULTS, "", "all", "name", [2, 1, 3, 4, 5]),
        (RESULTS, "", "all", "found", [2, 1, 3, 4, 5]),
        (RESULTS, "", "all", "highest", [3, 2, 1, 4, 5]),
        (RESULTS, "a.P", "all", "order", [2]),
        (RESULTS, "[", "all", "order", []),
        (RESULTS, "", "found", "order", [1, 2, 3]),
        (RESULTS, "", "warned", "order", [3]),
        (RESULTS, "", "problem", "order", [4]),
        (RESULTS, "", "above:Mass", "order", [2]),
        (RESULTS, "", "above:Normal", "order", [1]),
        (WITHHELD, "", "all", "highest", [2, 1, 3, 4, 5]),
        (WITHHELD, "", "found", "order", [1, 2]),
        (WITHHELD, "", "warned", "order", [3]),
        (WITHHELD, "", "above:Edema", "order", [1, 2]),
    ],
)
def test_results_are_chosen_by_name_and_kind_and_sorted(page, results, text, kind, sort, expected):
    script = "return cxr.chooseResults(arguments[0], arguments[1], 'Normal').map((result) => result.id)"
    assert page.execute_script(script, results, {"text": text, "kind": kind, "sort": sort}) == expected


def test_rows_show_no_label_of_what_is_withheld(page):
    script = "return arguments[0].map((result) => cxr.createRow(result, 'Normal').textContent)"
    assert page.execute_script(script, WITHHELD) == [
        "b.pngEdemaNormalEdema 60.0 %, Mass 20.0 %, Normal 99.0 %",
        "A.pngMassEdemaMass 70.0 %, Edema 55.0 %, Normal 10.0 %",
        "c.pngNot shown: it is blank.",
        "d.pngempty",
        "e.pngwaiting",
    ]
    overridden = page.execute_script(script, RESULTS)[2]
    assert overridden == "c.pngEdemaunlike the training imagesEdema 90.0 %, Mass 10.0 %, Normal 10.0 %"


def test_the_state_is_put_into_words(page):
    script = "return arguments[0].map((count) => cxr.describeProgress(arguments[1].slice(0, count)))"
    assert page.execute_script(script, [0, 1, 5], RESULTS) == [
        "", "1 of 1 file answered", "4 of 5 files answered, 1 of them not readable",
    ]  # fmt: skip


def test_what_may_not_be_a_chest_radiograph_is_withheld_until_overridden(driver, predictor, uploads):
    oracle = Oracle(predictor.facts, NIH, ("it is a <b>cat</b>",))
    with serve(create_app(oracle)) as address, visit(driver, address) as page:
        upload(page, uploads[:1])
        assert text_of(page, "#rows tr") == f"{uploads[0].name} Not shown: it is a <b>cat</b>."
        find(page, "[data-open]")[0].click()
        wait(lambda: find(page, "#image-a img.grey"))
        assert "may not be a chest radiograph" in text_of(page, "#warnings")
        assert text_of(page, "#caption-a") == uploads[0].name
        assert not find(page, "#labels input, #image-a .heat, .tile")
        buttons = [find(page, f"#save-{what}")[0] for what in ("picture", "report")]
        assert not any(button.is_enabled() for button in buttons)
        find(page, "[data-override]")[0].click()
        assert len(find(page, "#labels input")) == len(NIH)
        assert len(find(page, ".tile")) == 4
        assert find(page, "#image-a .heat")
        assert all(button.is_enabled() for button in buttons)
        find(page, "#back")[0].click()
        wait(lambda: "unlike the training images" in text_of(page, "#rows tr"))


def test_the_server_gets_files_and_nothing_of_the_results_unless_they_are_wanted(page, phantom_folder, traffic):
    images = sorted((phantom_folder / "images").iterdir())[:60]

    def asked():
        return [size for path, size in traffic if path == "/_dash-update-component"]

    traffic.clear()
    upload(page, images)
    assert asked() == []
    assert len([path for path, _ in traffic if path == "/api/v1/predictions"]) == len(images)
    find(page, "[data-sort=highest]")[0].click()
    find(page, "#search")[0].send_keys("_000")
    open_first(page)
    find(page, "#labels input")[3].click()
    find(page, "body")[0].send_keys("n")
    wait(lambda: text_of(page, "#position").startswith("image 2 of"))
    find(page, "#back")[0].click()
    assert asked() == []
    find(page, "#csv")[0].click()
    wait(lambda: [path for path in page.downloads.glob("*.csv") if len(pd.read_csv(path)) == len(images)])
    assert len(asked()) == 1


LIST = "const list = document.getElementById('labels');"


@pytest.mark.parametrize("count", [1, 2, 15, 40, 174])
def test_label_sets_of_any_size_are_legible(driver, predictor, uploads, count):
    names = tuple(f"sign_{k}{'_of_some_disease' * (k % 3)}" for k in range(count))
    labels = LabelSet(names, names[-1] if count > 1 else None)
    with serve(create_app(Oracle(predictor.facts, labels))) as address, visit(driver, address) as page:
        upload(page, uploads)
        wait(lambda: max(row.rect["height"] for row in find(page, "#rows tr")) < 250)
        find(page, "#show")[0].click()
        wait(lambda: find(page, ".dash-dropdown-search"))[0].send_keys("sign 0")
        choose(page, "sign 0 above its threshold")
        wait(lambda: text_of(page, "#count") != "3 of 3 images")
        find(page, "#show")[0].click()
        choose(page, "all images")
        wait(lambda: text_of(page, "#count") == "3 of 3 images")
        open_first(page, labels)
        assert find(page, "#labels")[0].rect["height"] < 800
        is_long = page.execute_script(f"{LIST} return list.scrollHeight > list.clientHeight")
        assert is_long == (count > 15)
        assert find(page, "#find-label")[0].is_displayed() == is_long
        page.execute_script(f"{LIST} list.lastChild.querySelector('input').click();")
        assert names[-1].replace("_", " ") in text_of(page, "#caption-a")
        assert find(page, "#labels > :last-child")[0].is_displayed()
        if is_long:
            find(page, "#label-text")[0].send_keys("sign 39")
            wait(lambda: sum(choice.is_displayed() for choice in find(page, "#labels > *")) == 1)
        assert page.execute_script(CONTRASTS) == []
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_all_images_can_be_removed(page, uploads):
    upload(page, uploads)
    find(page, "#search")[0].send_keys("broken")
    wait(lambda: text_of(page, "#count") == "1 of 3 images")
    find(page, "#clear")[0].click()
    page.switch_to.alert.accept()
    wait(lambda: not find(page, "#overview")[0].is_displayed())
    assert text_of(page, "#state") == ""
    upload(page, uploads)  # the search is removed too


def test_all_of_it_with_the_keyboard(page, uploads):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        ActionChains(page).send_keys(*keys).perform()

    def tab_to(selector, most=40):
        for _ in range(most):
            if page.execute_script("return document.activeElement.matches(arguments[0])", selector):
                return
            press(Keys.TAB)
        raise AssertionError(f"{selector} is not reached with the tab key")

    tab_to("#files")
    page.switch_to.active_element.send_keys("\n".join(str(path) for path in uploads))
    wait(lambda: text_of(page, "#state").startswith("3 of 3"))
    tab_to("#search")
    tab_to("#show")
    press(Keys.ENTER)
    wait(lambda: find(page, ".dash-dropdown-content [role=option]"))
    press(Keys.ESCAPE)
    wait(lambda: not find(page, ".dash-dropdown-content [role=option]"))
    tab_to("#csv")
    tab_to("[data-open]")
    press(Keys.ENTER)
    wait(lambda: find(page, "#image-a img.grey"))
    wait(lambda: page.execute_script("return document.activeElement.matches('#pane-a .stage')"))
    press("+")
    wait(lambda: "scale(1.25)" in find(page, "#image-a")[0].get_attribute("style"))
    press("0")
    wait(lambda: "scale(1)" in find(page, "#image-a")[0].get_attribute("style"))
    if find(page, "[data-override]"):
        page.execute_script("document.querySelector('[data-override]').focus()")
        press(Keys.ENTER)
    wait(lambda: len(find(page, "#labels input")) == 15)
    tab_to("#opacity")
    press(Keys.ARROW_LEFT)
    tab_to("#labels input")
    before = find(page, "#labels input:checked")[0].get_property("value")
    press(Keys.ARROW_DOWN)
    wait(lambda: find(page, "#labels input:checked")[0].get_property("value") != before)
    assert text_of(page, "#position") == "image 1 of 2"
    press("n")
    wait(lambda: text_of(page, "#position") == "image 2 of 2")
    press("p")
    wait(lambda: text_of(page, "#position") == "image 1 of 2")
    press(Keys.ESCAPE)
    wait(lambda: find(page, "#overview")[0].is_displayed())
    wait(lambda: page.execute_script("return document.activeElement.dataset.open"))


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_themes_are_legible_and_controls_have_names(page, uploads, theme):
    if page.execute_script("return document.documentElement.dataset.theme") != theme:
        find(page, "#theme")[0].click()
    upload(page, uploads)
    assert page.execute_script(CONTRASTS) == []
    open_first(page)
    assert page.execute_script(CONTRASTS) == []
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "slider", "radio", "searchbox", "textbox", "combobox", "link", "option"}
    for node in tree:
        if not node["ignored"] and node["role"]["value"] in roles:
            assert node["name"]["value"].strip(), node


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(page, uploads, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        upload(page, uploads)
        for _ in range(2):
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
            if not find(page, "#image-a img"):
                open_first(page)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

"""The page in a real browser, as a person uses it."""

import os
import shutil
import threading
import time

import pandas as pd
import pytest
import waitress
from PIL import Image

from cxrkeras.app.server import create_app, make_server
from cxrkeras.labels import LABELS, NO_FINDING
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


@pytest.fixture(scope="module")
def address(predictor):
    server = make_server(create_app(predictor), "127.0.0.1", 0)
    assert isinstance(server, waitress.server.BaseWSGIServer)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}/"
    server.close()


@pytest.fixture(scope="module")
def uploads(phantom_folder, tmp_path_factory):
    """Two radiographs and a file that is none."""
    folder = tmp_path_factory.mktemp("uploads")
    for path in sorted((phantom_folder / "images").iterdir())[:2]:
        shutil.copy(path, folder)
    (folder / "broken <b>.png").write_bytes(b"no image")
    return sorted(folder.iterdir())


@pytest.fixture
def page(driver, address):
    driver.get(address)
    wait(lambda: find(driver, "#files"))
    yield driver
    severe = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    severe = [message for message in severe if "beforeunload" not in message]  # the driver leaves without a gesture
    assert severe == []  # the content policy forbids nothing that the page needs, and no script fails


def wait(condition, seconds=30):
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception as error:  # an element that was drawn anew meanwhile
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


def open_first(page):
    wait(lambda: find(page, "[data-open]"))[0].click()
    wait(lambda: find(page, "#film-a img.grey"))
    for button in find(page, "[data-insist]"):  # a small network may take a phantom for something else
        button.click()
    wait(lambda: len(find(page, "#label input")) == 15)


def downloaded(page, ending):
    return wait(lambda: next((path for path in page.downloads.iterdir() if path.name.endswith(ending)), None))


def test_the_notice_is_there_before_anything_is_uploaded(page):
    assert "no medical device" in text_of(page, ".notice")
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
    numbers = [one.text for one in find(page, "#label .number")]
    assert len(numbers) == 15
    findings = [float(text.strip("<> %")) for text in numbers[:-1]]
    assert findings == sorted(findings, reverse=True)
    assert find(page, "#label input")[-1].get_property("value") == NO_FINDING  # apart, whatever its probability
    other = find(page, "#label input")[5]
    label = other.get_property("value")
    other.click()
    wait(lambda: label.replace("_", " ") in text_of(page, "#caption-a"))
    for tile in find(page, ".tile"):
        tile.click()
        name = tile.get_attribute("data-label").replace("_", " ")
        wait(lambda name=name: name in text_of(page, "#caption-a"))
        assert find(page, "#label input:checked")[0].get_property("value").replace("_", " ") == name

    slider = find(page, "#opacity")[0]
    before = page.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--heat')")
    slider.send_keys("\ue014" * 10)  # the right arrow
    after = page.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--heat')")
    assert float(after) == pytest.approx(float(before) + 0.1)

    find(page, "[data-go=back]")[0].click()
    wait(lambda: find(page, "#csv")[0].is_displayed())
    find(page, "#csv")[0].click()
    table = pd.read_csv(downloaded(page, ".csv"))
    assert table["file"].tolist() == [path.name for path in uploads]
    assert table["problem"].notna().sum() == 1
    assert table[[f"prob_{label}" for label in LABELS]].notna().all(axis=1).sum() == 2


def test_a_picture_and_a_report_can_be_taken_away(page, uploads):
    upload(page, uploads[:2])
    open_first(page)
    find(page, "#save-picture")[0].click()
    with Image.open(downloaded(page, ".png")) as picture:
        assert picture.width == 1024
        assert picture.height > 1024  # the notice is beneath
    find(page, "#save-report")[0].click()
    assert "no medical device" in downloaded(page, "-report.html").read_text()


def test_a_heat_map_lies_on_all_of_an_image_that_is_no_square(page, uploads, tmp_path):
    with Image.open(uploads[0]) as image:
        grey = image.convert("L").resize((64, 64))
    wide = [tmp_path / f"wide{top}.png" for top in (0, 8, 16, 24)]
    for path, top in zip(wide, (0, 8, 16, 24), strict=True):
        grey.crop((0, top, 64, top + 40)).save(path)
    upload(page, wide)
    open_first(page)
    for path in wide:  # until one has a map with evidence: a network of so few steps has many without
        wait(lambda path=path: path.name in text_of(page, "#caption-a"))
        for button in find(page, "[data-insist]"):  # it may be unlike the training images
            button.click()
        wait(lambda: find(page, "#label input"))
        for choice in find(page, "#label input"):
            choice.click()
            name = choice.get_property("value").replace("_", " ")
            wait(lambda name=name: name in text_of(page, "#caption-a"))
            if find(page, "#film-a .heat"):
                break
        if find(page, "#film-a .heat") or path == wide[-1]:
            break
        find(page, "body")[0].send_keys("n")
    rectangles = [one.rect for one in find(page, "#film-a img")]
    assert rectangles[0]["width"] / rectangles[0]["height"] == pytest.approx(64 / 40, rel=0.01)
    assert all(one == rectangles[0] for one in rectangles)
    assert len(rectangles) == 2


def test_a_server_that_is_gone_is_told_and_the_page_goes_on_once_it_is_back(page, uploads):
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
    find(page, "#beside")[0].click()
    wait(lambda: find(page, ".dash-dropdown-content [role=option]"))[0].click()
    wait(lambda: find(page, "#film-b img.grey") and find(page, "#heading-b")[0].is_displayed())
    for _ in range(2):  # a small network may take both phantoms for something else
        for button in find(page, "[data-insist]")[:1]:
            button.click()
            time.sleep(0.5)
    wait(lambda: len(find(page, "#label .bar-row")) == 30)
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
    wait(lambda: find(page, ".dash-dropdown-content [role=option]"))
    next(one for one in find(page, ".dash-dropdown-content [role=option]") if "not readable" in one.text).click()
    wait(lambda: text_of(page, "#count") == "1 of 3 images")


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
    wait(lambda: find(page, "#film-a img.grey"))
    wait(lambda: page.execute_script("return document.activeElement.matches('#heading-a .stage')"))
    press("+")
    wait(lambda: "scale(1.25)" in find(page, "#film-a")[0].get_attribute("style"))
    press("0")
    wait(lambda: "scale(1)" in find(page, "#film-a")[0].get_attribute("style"))
    if find(page, "[data-insist]"):
        page.execute_script("document.querySelector('[data-insist]').focus()")
        press(Keys.ENTER)
    wait(lambda: len(find(page, "#label input")) == 15)
    tab_to("#opacity")
    press(Keys.ARROW_LEFT)
    tab_to("#label input")
    before = find(page, "#label input:checked")[0].get_property("value")
    press(Keys.ARROW_DOWN)
    wait(lambda: find(page, "#label input:checked")[0].get_property("value") != before)
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
            if not find(page, "#film-a img"):
                open_first(page)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

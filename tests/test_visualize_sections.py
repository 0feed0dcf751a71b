"""What the pages show beside the tree, in a real browser: charts, best cells, failures, a comparison.

Needs Chromium and its driver (``apt install chromium-driver``); without them the tests are skipped.
"""

import pytest
from drawn_runs import finished  # noqa: F401 (a fixture)
from made_up_comparison import RESULTS, result_of, write_main, write_trials
from trained_runs import as_trained

import sampled_cells
import visualize
from saved_trainings import read_trainings

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from browser import browser, check_logs, look, open_page  # noqa: E402, F401 (a fixture)
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

HOSTILE = "</script><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>"
HOSTILE_NAME = "<img src=x onerror=alert(3)><script>alert(4)<!--"  # without a slash, as in a file's name


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):  # noqa: F811
    """A search by training, with its page; one of its two failures has a hostile reason."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run = as_trained(finished, folder, [HOSTILE, "too slow"])
    assert visualize.main([str(folder), "--html"]) == 0
    return folder, run


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison with a hostile method and a hostile file, with its page."""
    folder = tmp_path_factory.mktemp("compared")
    write_trials(folder, [*RESULTS, result_of(HOSTILE_NAME, 0, [[1, 0.5, 0.5]])])
    (folder / "trials" / f"{HOSTILE_NAME}.json").write_text("{}")
    write_main(folder, ["tuned", "random", HOSTILE_NAME])
    assert visualize.main([str(folder), "--html"]) == 0
    return folder


@pytest.fixture(params=["trained", "compared"])
def page(request, browser):  # noqa: F811
    """Both pages, opened anew; afterwards nothing may have gone wrong."""
    folder = request.getfixturevalue(request.param)
    path = folder / "comparison.html" if request.param == "compared" else folder[0] / "tree.html"
    open_page(browser, path)
    yield browser
    look(browser, 1300)
    check_logs(browser, path)


only_trained = pytest.mark.parametrize("page", ["trained"], indirect=True)
only_compared = pytest.mark.parametrize("page", ["compared"], indirect=True)


def texts(page, selector):
    """At one moment: a page that gets its size late is drawn anew, and elements found before are gone."""
    return page.execute_script("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector)


@only_trained
def test_best_cells_are_drawn_with_their_accuracies(page, trained):
    folder, run = trained
    best = sampled_cells.best_cells(run, read_trainings(run, folder))
    words = texts(page, "#best-cells figcaption")
    assert len(words) == len(best) == 5
    for number, (cell, text) in enumerate(zip(best, words), 1):
        assert text.startswith(f"{number}. {cell['accuracy']:.7f} test accuracy; sample {cell['sample']};")
        assert text.endswith(f"test accuracy {cell['test']:.7f}")
    pictures = page.find_elements(By.CSS_SELECTOR, "#best-cells svg.cell")
    edges = [len(picture.find_elements(By.CSS_SELECTOR, "path.edge")) for picture in pictures]
    assert edges == [cell["edges"].bit_count() for cell in best]
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(ids)) == len(ids)


@only_trained
def test_charts_of_the_best_so_far_and_their_values(page, trained):
    folder, run = trained
    assert [text.split(" over ")[1] for text in texts(page, "#best-so-far svg title")] == [
        "unique samples", "seconds of training",
    ]  # fmt: skip
    steps = page.execute_script("return document.querySelector('#best-so-far path.line').getAttribute('d')")
    assert steps.count("V") == len(run.bests) - 1
    rows = texts(page, "#best-so-far .chart:first-child tbody td")
    assert rows[1::2] == [f"{best.accuracy:.7f}" for best in run.bests]
    over_time = sampled_cells.best_over_time(run, read_trainings(run, folder))
    assert f"of {over_time['end']:g} in all" in texts(page, "#best-so-far svg desc")[1]
    page.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert page.find_element(By.CSS_SELECTOR, "details table").is_displayed()


@only_trained
def test_failed_trainings_are_listed_as_text(page):
    rows = texts(page, "#failures tbody td")
    assert rows[0] == rows[3] == "out of time" and rows[1:5:3] == [HOSTILE, "too slow"]
    assert rows[2].startswith("cell 91: ") and "input 0 to " in rows[2]
    assert page.find_elements(By.TAG_NAME, "img") == []


@only_compared
def test_the_legend_hides_and_shows_methods_by_mouse_and_keyboard(page):
    buttons = page.find_elements(By.CSS_SELECTOR, "#toggles button")
    names = [button.text for button in buttons]
    assert names[:2] == ["tuned", "random"] and names[2] == HOSTILE_NAME and names[3:] == ["all", "none"]
    lines = lambda: len(page.find_elements(By.CSS_SELECTOR, "#chart path.line"))  # noqa: E731
    assert lines() == 5 + 3 + 1  # trials, means, the best cell
    buttons[0].click()
    assert lines() == 6 and buttons[0].get_attribute("aria-pressed") == "false"
    buttons[1].send_keys(Keys.SPACE)
    assert lines() == 3
    buttons[4].send_keys(Keys.ENTER)
    assert lines() == 1
    buttons[3].click()
    assert lines() == 9 and buttons[0].get_attribute("aria-pressed") == "true"
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert "1 file of trials cannot be used" in page.find_element(By.CLASS_NAME, "caption").text


@only_compared
def test_the_tables_of_a_comparison(page):
    assert texts(page, "#tables h2")[:2] == ["Methods", "Unique samples to the best cell"]
    assert texts(page, "#tables tbody tr:first-child td")[:3] == ["tuned", "2", "0.9000000"]


# --- both pages -------------------------------------------------------------------------------

CONTRASTS = """
const channels = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
  .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = e => {
  for (; e; e = e.parentElement) {
    const colour = channels(getComputedStyle(e).backgroundColor);
    if (colour.length === 3 || colour[3] > 0.9) return colour;
  }
};
return [...document.querySelectorAll("body *:not(script):not(noscript)")].filter(e => !e.closest("svg.cell"))
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length)
  .filter(e => !["title", "desc", "SCRIPT"].includes(e.tagName))
  .map(e => {
    const style = getComputedStyle(e), text = e.tagName === "text" ? style.fill : style.color;
    const [a, b] = [light(channels(text)), light(behind(e))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName, e.textContent.slice(0, 30)];
  });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_either_scheme(page, scheme):
    look(page, 1300, scheme)
    back = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]
    found = page.execute_script(CONTRASTS)
    assert len(found) > 20 and min(found)[0] >= 4.5, min(found)


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_overflows_and_targets_are_large_enough(page, width):
    page.execute_script("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    look(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().toJSON())"
    targets = page.execute_script(script, "button, summary, input")
    assert targets and min(min(box["width"], box["height"]) for box in targets) >= 40
    # a wide table scrolls in its box, a line ends where its chart does
    outside = page.execute_script(script, "body *:not(.scroll *):not(svg *), .plot text")
    assert max(box["right"] for box in outside) <= width and min(box["left"] for box in outside) >= 0


FOCUSED = """
const e = document.activeElement, style = getComputedStyle(e);
const box = e.getBoundingClientRect(), seen = box.bottom > 0 && box.top < innerHeight;
e.dataset.met = 1;
return [e.tagName, style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2 && seen];
"""


def test_everything_is_reached_by_the_keyboard_and_seen(page):
    look(page, 400)
    reach = "button, summary, input, canvas, [tabindex]"
    number = page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).length", reach
    )
    for _ in range(number):
        webdriver.ActionChains(page, duration=0).send_keys(Keys.TAB).perform()
        name, visible = page.execute_script(FOCUSED)
        assert name != "BODY" and visible, name
    assert page.execute_script("return document.querySelectorAll('[data-met]').length") == number

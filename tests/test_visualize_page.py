"""The page of ``python visualize.py DIR --html`` in a real browser, without a screen.

Needs Chromium and its driver (``apt install chromium-driver``); without them the tests are skipped.
"""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import run

import saved_run
import tree_layout
import tree_page
import tree_pictures
from arch_generator import State
from saved_run import Best

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from browser import browser, check_logs, look, open_page  # noqa: E402, F401 (a fixture)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

HOSTILE = "</script><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a small run, with its page."""
    folder = tmp_path_factory.mktemp("run")
    assert run("MCTS.py", "--max-nodes", 4, "--seed", 0, "--quiet", "--out", folder).returncode == 0
    assert run("visualize.py", folder, "--html").returncode == 0
    return folder


@pytest.fixture(scope="module")
def tree(folder):
    """The run as Python reads it."""
    return saved_run.read_run(folder)


@pytest.fixture
def page(browser, folder):
    """The page, opened anew; afterwards nothing may have gone wrong in it."""
    open_page(browser, folder / "tree.html")
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    check_logs(browser, folder / "tree.html")


def hover(page, node, click=False):
    """Move the mouse over a node of the canvas."""
    canvas = page.find_element(By.ID, "tree")
    script = "return [screenX(arguments[0]) - size.w / 2, screenY(arguments[0]) - size.h / 2]"
    dx, dy = page.execute_script(script, node)
    actions = webdriver.ActionChains(page, duration=0).move_to_element_with_offset(canvas, round(dx), round(dy))
    (actions.click() if click else actions).perform()


def facts(page):
    """What the page says of the node pointed at: name -> text."""
    names, texts = (page.find_elements(By.CSS_SELECTOR, f"#facts {tag}") for tag in ("dt", "dd"))
    return {name.text: text.text for name, text in zip(names, texts)}


def operations(page):
    return [text.text for text in page.find_elements(By.CSS_SELECTOR, "#cell svg text")]


def shown_as(state):
    return [name for name in state.to_dict()["node_list"] if name != "term"]


def test_pointing_at_a_node_shows_its_cell(page, tree):
    best = int(np.argmax(tree.value * [state.finished for state in tree.states]))
    for node in (best, 1, len(tree.states) - 1, 0):
        hover(page, node)
        assert operations(page) == shown_as(tree.states[node])
        assert facts(page)["value"].startswith(f"{tree.value[node]:.7f}")
        assert facts(page)["visits"] == f"{tree.visits[node]:,}"
        assert facts(page)["created"] == f"{node + 1} of {len(tree.states)}"
        edges = page.find_elements(By.CSS_SELECTOR, "#cell svg path[marker-end]")
        assert len(edges) == tree.states[node].edges.bit_count()


def test_a_clicked_node_stays_and_the_keyboard_goes_on_from_it(page, tree):
    child = int(np.argmax(tree.parent == 0))
    hover(page, child, click=True)
    page.execute_script("canvas.dispatchEvent(new PointerEvent('pointerleave'))")
    assert operations(page) == shown_as(tree.states[child])
    canvas = page.find_element(By.ID, "tree")
    canvas.send_keys(Keys.ARROW_UP)
    assert facts(page)["created"].startswith("1 of")
    canvas.send_keys(Keys.ARROW_DOWN)
    most = max(np.flatnonzero(tree.parent == 0).tolist(), key=lambda i: tree.visits[i])
    assert facts(page)["visits"] == f"{tree.visits[most]:,}"
    page.find_element(By.ID, "best").click()
    assert facts(page)["this is"] == tree_layout.way_to(*saved_run.best_sample(tree), tree)[1]


def test_the_slider_goes_through_the_search(page, tree, folder):
    slider, total = page.find_element(By.ID, "time"), len(tree.states)
    words = lambda: page.find_element(By.ID, "so-far").text  # noqa: E731
    assert page.execute_script("return visible") == total
    assert f"{total} of {total} nodes created, {total} drawn" in words()
    best = json.loads((folder / "summary.json").read_text())["best_accuracy"]
    assert words().endswith(f"best sample {best:.7f}")
    inked = ink(page)
    slider.send_keys(Keys.HOME)
    assert page.execute_script("return visible") == 1 and "1 of" in words() and "best sample so far" in words()
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.execute_script("return visible") == 3
    assert 0 < ink(page) < inked
    half = total // 2
    page.execute_script("arguments[0].value = arguments[1]; arguments[0].oninput()", slider, half)
    assert f"{half} of {total} nodes created" in words() and "best sample so far 0." in words()
    slider.send_keys(Keys.END)
    assert page.execute_script("return visible") == total


def said_at(page, nodes):
    """What the page says of the best sample when so many nodes are there."""
    page.execute_script("byId('time').value = arguments[0]; setTime()", nodes)
    return page.find_element(By.ID, "so-far").text.partition("drawn; ")[2]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"bests": [Best(0.5, 1, 3), Best(0.75, 2, -1)]}, ["no sample yet", "so far 0.5", "best sample 0.75"]),
        ({}, ["so far not known", "so far at least 0.93", "best sample 0.9359642"]),
        ({"bests": []}, ["no sample yet", "no sample yet", "no sample yet"]),
        ({"bests": None, "guided": True}, ["so far not known", "so far not known", "best sample at least 0.9"]),
    ],
    ids=["placed", "not placed", "no samples", "guided, without a summary"],
)
def test_the_page_says_no_more_of_the_best_sample_than_is_known(browser, tree, tmp_path, changes, words):
    unplaced = [best._replace(nodes=None) for best in tree.bests]  # as a summary tells them
    bests = changes.get("bests", unplaced)
    if bests and bests[-1].nodes == -1:
        bests[-1] = bests[-1]._replace(nodes=len(tree.states))  # when the last node came
    settings = {**tree.settings, "guide": int(changes.get("guided", False))}
    other = dataclasses.replace(tree, bests=bests, settings=settings)
    tree_page.write_page(other, tree_layout.arrange(other, 5_000), {}, tmp_path)
    open_page(browser, tmp_path / "tree.html")
    total = len(tree.states)
    said = [said_at(browser, nodes) for nodes in (1, total // 2, total)]
    assert all(part in text for part, text in zip(words, said, strict=True)), said
    check_logs(browser, tmp_path / "tree.html")


def ink(page):
    """How many pixels of the canvas are not blank."""
    return page.execute_script(
        "draw(); const copy = new OffscreenCanvas(canvas.width, canvas.height);"
        "const seen = copy.getContext('2d', {willReadFrequently: true});"
        "seen.drawImage(canvas, 0, 0); const all = seen.getImageData(0, 0, canvas.width, canvas.height).data;"
        "let n = 0; for (let i = 3; i < all.length; i += 4) n += all[i] > 0; return n"
    )


def test_zooming_and_moving(page):
    before = page.execute_script("return [scale(), view.x]")
    page.find_element(By.ID, "in").click()
    canvas = page.find_element(By.ID, "tree")
    webdriver.ActionChains(page, duration=0).drag_and_drop_by_offset(canvas, 60, 0).perform()
    after = page.execute_script("return [scale(), view.x]")
    assert after[0] > before[0] and after[1] < before[1]
    page.find_element(By.ID, "whole").click()
    assert page.execute_script("return [scale(), view.x]") == before


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(page, width):
    look(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    edges = "[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right)"
    assert max(page.execute_script(f"return {edges}")) <= width


def test_a_phone(page, tree):
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    assert page.execute_script("return canvas.getBoundingClientRect().width") > 300
    assert ink(page) > 500
    last = len(tree.states) - 1
    hover(page, last)
    assert operations(page) == shown_as(tree.states[last])


def test_both_languages_lay_out_cells_alike(page):
    for vertices in range(2, 8):
        for edges in np.random.default_rng(1).integers(0, 1 << vertices * (vertices - 1) // 2, 30).tolist():
            there = page.execute_script("return arcs(arguments[0], arguments[1])", vertices, edges)
            assert [tuple(edge) for edge in there] == tree_pictures.arcs(State((0,) * (vertices - 2), edges))


def test_text_of_files_does_not_execute(browser, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"dataset": HOSTILE}))
    assert run("visualize.py", copy, "--html").returncode == 0
    open_page(browser, copy / "tree.html")
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert HOSTILE[:60] in browser.find_element(By.CLASS_NAME, "caption").text
    check_logs(browser, copy / "tree.html")  # an alert would have raised before

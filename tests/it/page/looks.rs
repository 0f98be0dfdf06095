//! How the page looks at two widths and in two themes, and that it needs no mouse.
//!
//! Pictures are left in `target/tmp/page` for a person to look at.

use std::path::Path;

use serde_json::Value;

use super::{Scene, cell, client, has};
use crate::support::browser::Look;

const WIDTHS: [(u32, u32); 2] = [(360, 740), (1_600, 1_000)];

#[test]
fn the_page_fits_two_widths_and_two_themes() {
    let Some(mut scene) = Scene::start("the_page_fits_two_widths_and_two_themes", "clients = true\n") else { return };
    let number = scene.client_at("b1");
    scene.backends[1].take();
    scene.page.until("a death", &format!("{}.startsWith('down for ')", cell("b1", 1)));
    scene.home(number);
    scene.page.until("the move", &has("#move-rows", &["b1", "down"]));
    scene.page.evaluate(&format!("document.querySelector('#ask-client').value = '{}'", client(number)));
    scene.page.evaluate("document.querySelector('#ask-form').requestSubmit()");
    scene.page.until("an answer", &has("#answer", &["goes to b0"]));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&folder).unwrap();
    for (width, height) in WIDTHS {
        let pictures = ["dark", "light"].map(|theme| {
            scene.page.look(Look { width, height, theme });
            let fits = "document.documentElement.scrollWidth <= innerWidth";
            scene.page.until("the width", &format!("innerWidth === {width} && {fits}"));
            // The page on which a picture is read has hidden it.
            scene
                .page
                .until("its stream", "!document.hidden && document.querySelector('#link').dataset.state === 'live'");
            assert_eq!(outside(&scene), Value::from(Vec::<String>::new()), "{width} {theme}");
            let png = scene.page.screenshot();
            std::fs::write(folder.join(format!("{width}-{theme}.png")), &png).unwrap();
            (scene.browser.picture(&png), png)
        });
        let [(dark, dark_png), (light, light_png)] = pictures;
        assert!(dark.colours > 50 && light.colours > 50, "there is something on them: {dark:?} {light:?}");
        assert!(dark.brightness < 80.0 && light.brightness > 200.0, "{width}: {dark:?} {light:?}");
        assert_ne!(dark_png, light_png);
    }
    assert_eq!(scene.page.complaints(), [""; 0]);
}

/// Elements with text that stand beyond the right edge.
fn outside(scene: &Scene) -> Value {
    scene.page.evaluate(
        "[...document.querySelectorAll('body *')]
            .filter(node => !node.closest('.skip, .unseen, thead, option'))
            .filter(node => node.getBoundingClientRect().right > innerWidth + 0.5)
            .map(node => node.outerHTML.slice(0, 80))",
    )
}

#[test]
fn the_keyboard_alone_reaches_and_uses_the_question() {
    let Some(scene) = Scene::start("the_keyboard_alone_reaches_and_uses_the_question", "") else { return };
    scene.page.until("the listeners", "document.querySelector('#ask-listener').value === 'l'");
    let mut seen = Vec::new();
    loop {
        scene.page.press("Tab");
        let focus = scene.page.evaluate(
            "(() => {
                const node = document.activeElement, style = getComputedStyle(node);
                const name = node.labels?.[0]?.textContent || node.textContent.trim();
                return [node.id || node.className, name, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
            })()",
        );
        assert_eq!(focus[2], true, "the focus is seen: {focus}");
        assert!(focus[1].as_str().is_some_and(|name| !name.is_empty()), "it has a name: {focus}");
        let id = focus[0].as_str().unwrap().to_owned();
        let is_client = id == "ask-client";
        seen.push(id);
        if is_client {
            break;
        }
        assert!(seen.len() < 20, "{seen:?}");
    }
    scene.page.write("127.0.11.1");
    let mut fields = Vec::new();
    while fields.last().map(String::as_str) != Some("BUTTON") {
        scene.page.press("Tab");
        let at = scene.page.evaluate("document.activeElement.name || document.activeElement.tagName");
        fields.push(at.as_str().unwrap().to_owned());
        assert!(fields.len() < 20, "{fields:?}");
    }
    assert_eq!(fields, ["listener", "sni", "host", "path", "cookie", "BUTTON"]);
    scene.page.press("Enter");
    scene.page.until("an answer", &has("#answer", &["127.0.11.1 goes to b", "of pool p"]));
    let live = "[document.querySelector('#answer').ariaLive, document.querySelector('#link').getAttribute('role')]";
    assert_eq!(scene.page.evaluate(live), serde_json::json!(["polite", "status"]));
    let unnamed = "[...document.querySelectorAll('table')].filter(table =>
        !(table.getAttribute('aria-label') || table.getAttribute('aria-labelledby')) ||
        table.querySelectorAll('thead th[scope=col]').length < 2).length";
    assert_eq!(scene.page.evaluate(unnamed), 0, "every table has a name and heads");
    // The focus stays where it is while samples come.
    let heard = scene.page.evaluate("heard");
    scene.page.until("another sample", &format!("heard !== {heard}"));
    assert_eq!(scene.page.evaluate("document.activeElement.tagName"), "BUTTON");
}

//! The scenarios: what is done, what is seen, and what was promised.
//!
//! Each asks, maybe changes something, asks again, and compares. Invariant: a promise is judged by what clients saw.

use super::clients::{self, CLIENTS, Round};
use super::configuration::{HASH, RING, ROUND_ROBIN, STICK_TABLE};
use super::findings::{self, Change, astray, movement, out_of_turn, percent, shares, uneven, unwanted};
use super::report::Scene;
use super::stage::{DemoStage, KEYED, NEWCOMER, VICTIM};
use crate::cli::CommandError;

/// How far the share that moves may be from the theory: three standard deviations of 200 clients on 160 points.
const TOLERANCE: f64 = 0.10;

/// Whom the clients of the keyed pools reach.
pub(super) type Homes = [Round; KEYED.len()];

/// Clients come again and again, also after a reload.
pub(super) async fn ip_hash(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let mut rounds = vec![stage.ask(HASH).await?, stage.ask(HASH).await?, stage.ask(HASH).await?];
    let generation = stage.reload()?;
    rounds.extend([stage.ask(HASH).await?, stage.ask(HASH).await?]);
    let lines: String = clients::all().map(|client| format!("{client}\n")).collect();
    let foretold = stage.balancer().explain(HASH, &lines)?;
    let differs = foretold.iter().map(String::as_str).ne(rounds[0].backends());
    Ok(Scene::new("IP hash")
        .say(format!(
            "{CLIENTS} clients, 127.0.0.2 to 127.0.0.{}, connect five times each. After the third time the balancer \
             reloads its configuration: generation {generation}.",
            CLIENTS + 1
        ))
        .show(&shares(&stage.names(), &rounds[4]))
        .promise(stays(HASH, &rounds), astray(&rounds))
        .promise(
            "`sessile explain` names the same backends, offline, from the file alone",
            differs.then(|| "it names others".into()),
        ))
}

/// The same on a ring.
pub(super) async fn ring(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let rounds = [stage.ask(RING).await?, stage.ask(RING).await?, stage.ask(RING).await?];
    Ok(Scene::new("Consistent ring")
        .say("The same clients connect three times each to a pool whose backends own 160 points of a ring.")
        .show(&shares(&stage.names(), &rounds[2]))
        .promise(stays(RING, &rounds), astray(&rounds)))
}

/// A backend more: who has to move?
pub(super) async fn one_added(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let before = stage.ask_keyed().await?;
    let remembered = stage.ask(STICK_TABLE).await?;
    let generation = stage.add(NEWCOMER).await?;
    let after = stage.ask_keyed().await?;
    let theory = 1.0 / stage.names().len() as f64;
    let mut scene = Scene::new("Consistent ring, one backend added")
        .say(format!(
            "Backend {NEWCOMER} is written into the file and the balancer reloads: generation {generation}. It takes \
             clients after its first good check. The pool with the IP hash gets it, too. (A plain hash modulo the \
             number of backends would move {} of the clients.)",
            percent(1.0 - theory)
        ))
        .show(&movement(&stage.names(), changes(&before, &after)));
    for (pool, before, after) in changes(&before, &after) {
        let moved = before.moves(after).count();
        let share = moved as f64 / CLIENTS as f64;
        let far = (share - theory).abs() > TOLERANCE;
        scene = scene
            .promise(
                format!("{pool}: whoever moved, moved to {NEWCOMER}"),
                unwanted(before.moves(after).filter(|moved| moved.to != NEWCOMER)),
            )
            .promise(
                format!("{pool}: {moved} of {CLIENTS} moved, {}; theory: 1/N = {}", percent(share), percent(theory)),
                far.then(|| "that is too far from it".into()),
            );
    }
    let rounds = [remembered, stage.ask(STICK_TABLE).await?];
    scene =
        scene.promise(format!("{STICK_TABLE}: nobody moved at all, because everybody is remembered"), astray(&rounds));
    websocket_stays(scene, stage).await
}

/// Nobody has a home.
pub(super) async fn round_robin(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let round = stage.ask(ROUND_ROBIN).await?;
    let names = stage.names();
    let turn: Vec<_> = round.backends().take(names.len()).collect();
    Ok(Scene::new("Round robin")
        .say("The same clients, one after the other, connect to a pool without a key.")
        .show(&shares(&names, &round))
        .promise(format!("backends take turns: {}, and so on", turn.join(", ")), out_of_turn(&names, &round))
        .promise("all serve alike", uneven(&names, &round)))
}

/// A backend dies: who has to move, and where to?
pub(super) async fn one_killed(stage: &mut DemoStage, homes: &Homes) -> Result<Scene, CommandError> {
    stage.kill(VICTIM).await?;
    let refuge = stage.ask_keyed().await?;
    let turns = stage.ask(ROUND_ROBIN).await?;
    let (names, survivors) = (stage.names(), stage.names_but(VICTIM));
    let mut scene = Scene::new("One backend killed")
        .say(format!("Backend {VICTIM} dies with its connections and its memory; a check finds it down."))
        .show(&movement(&names, changes(homes, &refuge)));
    for (pool, home, refuge) in changes(homes, &refuge) {
        let (orphans, to) = (home.count(VICTIM), findings::destinations(&names, home, refuge));
        scene = scene.promise(
            format!("{pool}: only the {orphans} clients of {VICTIM} moved, to {to}"),
            unwanted(home.moves(refuge).filter(|moved| moved.from != VICTIM)),
        );
    }
    scene = scene.promise(format!("{ROUND_ROBIN}: the others serve alike"), uneven(&survivors, &turns));
    websocket_stays(scene, stage).await
}

/// It returns: does everybody?
pub(super) async fn one_back(stage: &mut DemoStage, homes: &Homes) -> Result<Scene, CommandError> {
    let refuge = stage.ask_keyed().await?;
    let remembered = stage.ask(STICK_TABLE).await?;
    stage.revive(VICTIM).await?;
    let back = stage.ask_keyed().await?;
    let turns = stage.ask(ROUND_ROBIN).await?;
    let names = stage.names();
    let [before, now] = [homes, &back].map(|[_, ring]| ring.counter(VICTIM));
    let mut scene = Scene::new("One backend back")
        .say(format!(
            "Backend {VICTIM} starts again and takes clients after its first good check. Its counter stood at \
             {before} and is at {now} now: what it had in memory is gone. That is why clients should stay where they \
             settled."
        ))
        .show(&movement(&names, changes(&refuge, &back)));
    for (pool, home, back) in changes(homes, &back) {
        scene = scene.promise(
            format!("{pool}: all {} clients of {VICTIM} are back, and nobody else moved", home.count(VICTIM)),
            unwanted(home.moves(back)),
        );
    }
    let rounds = [remembered, stage.ask(STICK_TABLE).await?];
    let text = format!("{STICK_TABLE}: whoever had to leave {VICTIM} stays where it went, and nobody moves twice");
    scene = scene.promise(text, astray(&rounds));
    scene = scene.promise(format!("{ROUND_ROBIN}: all serve alike again"), uneven(&names, &turns));
    websocket_stays(scene, stage).await
}

fn changes<'a>(before: &'a Homes, after: &'a Homes) -> impl Iterator<Item = Change<'a>> {
    KEYED.into_iter().zip(before.iter().zip(after)).map(|(pool, (before, after))| (pool, before, after))
}

fn stays(pool: &str, rounds: &[Round]) -> String {
    let connections = rounds.len() * CLIENTS;
    format!("{pool}: each client reached one and the same backend every time ({connections} connections)")
}

async fn websocket_stays(scene: Scene, stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let websocket = stage.websocket();
    let lives = websocket.echoes().await;
    let (client, backend) = (websocket.client(), websocket.backend());
    let text = format!("a WebSocket of {client}, open from the start, still talks to {backend}");
    Ok(scene.promise(text, (!lives).then(|| "it does not answer".into())))
}

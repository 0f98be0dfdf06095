//! The scenarios of the demo, each with its steps, its table and its promises.
//!
//! A scenario sends requests, changes something, sends requests again, and compares. Uses no internal state of the
//! balancer. Invariant: a promise is decided by the responses that clients received.

use super::clients::{self, CLIENTS, Round};
use super::configuration::{HASH, RING, ROUND_ROBIN, STICK_TABLE};
use super::findings::{self, Change, astray, movement, out_of_turn, percent, shares, uneven, unwanted};
use super::report::Scene;
use super::stage::{DemoStage, KEYED, NEWCOMER, VICTIM};
use crate::cli::CommandError;

/// Largest accepted distance of the moved share from theory: three standard deviations of 200 clients on 160 points.
const TOLERANCE: f64 = 0.10;

/// Responses to all clients, for each pool with a key.
pub(super) type Homes = [Round; KEYED.len()];

/// IP hash: clients connect several times, also after a reload.
pub(super) async fn ip_hash(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let mut rounds = vec![stage.ask(HASH).await?, stage.ask(HASH).await?, stage.ask(HASH).await?];
    let generation = stage.reload()?;
    rounds.extend([stage.ask(HASH).await?, stage.ask(HASH).await?]);
    let lines: String = clients::all().map(|client| format!("{client}\n")).collect();
    let predicted = stage.balancer().explain(HASH, &lines)?;
    let differs = predicted.iter().map(String::as_str).ne(rounds[0].backends());
    Ok(Scene::new("IP hash")
        .text(format!(
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

/// Consistent ring: clients connect several times.
pub(super) async fn ring(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let rounds = [stage.ask(RING).await?, stage.ask(RING).await?, stage.ask(RING).await?];
    Ok(Scene::new("Consistent ring")
        .text("The same clients connect three times each to a pool with 160 points per backend on a ring.")
        .show(&shares(&stage.names(), &rounds[2]))
        .promise(stays(RING, &rounds), astray(&rounds)))
}

/// A backend is added: compares the clients before and after.
pub(super) async fn one_added(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let before = stage.ask_keyed().await?;
    let remembered = stage.ask(STICK_TABLE).await?;
    let generation = stage.add(NEWCOMER).await?;
    let after = stage.ask_keyed().await?;
    let theory = 1.0 / stage.names().len() as f64;
    let mut scene = Scene::new("Consistent ring, one backend added")
        .text(format!(
            "Backend {NEWCOMER} is added to the file and the balancer reloads: generation {generation}. It takes \
             clients after its first good check. The pool with the IP hash gets it as well. (A plain hash modulo the \
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
                format!("{pool}: every client that moved, moved to {NEWCOMER}"),
                unwanted(before.moves(after).filter(|moved| moved.to != NEWCOMER)),
            )
            .promise(
                format!("{pool}: {moved} of {CLIENTS} moved, {}; theory: 1/N = {}", percent(share), percent(theory)),
                far.then(|| "that is too far from it".into()),
            );
    }
    let rounds = [remembered, stage.ask(STICK_TABLE).await?];
    scene =
        scene.promise(format!("{STICK_TABLE}: no client moved, because all are in the stick table"), astray(&rounds));
    websocket_stays(scene, stage).await
}

/// Round robin: backends take turns.
pub(super) async fn round_robin(stage: &mut DemoStage) -> Result<Scene, CommandError> {
    let round = stage.ask(ROUND_ROBIN).await?;
    let names = stage.names();
    let turn: Vec<_> = round.backends().take(names.len()).collect();
    Ok(Scene::new("Round robin")
        .text("The same clients connect, one after the other, to a pool without a key.")
        .show(&shares(&names, &round))
        .promise(format!("backends take turns: {}, and so on", turn.join(", ")), out_of_turn(&names, &round))
        .promise("all serve equally many clients", uneven(&names, &round)))
}

/// A backend is killed: compares the clients before and after.
pub(super) async fn one_killed(stage: &mut DemoStage, homes: &Homes) -> Result<Scene, CommandError> {
    stage.kill(VICTIM).await?;
    let refuge = stage.ask_keyed().await?;
    let turns = stage.ask(ROUND_ROBIN).await?;
    let (names, survivors) = (stage.names(), stage.names_but(VICTIM));
    let mut scene = Scene::new("One backend killed")
        .text(format!("Backend {VICTIM} is killed with its connections and its memory; a check marks it down."))
        .show(&movement(&names, changes(homes, &refuge)));
    for (pool, home, refuge) in changes(homes, &refuge) {
        let (orphans, to) = (home.count(VICTIM), findings::destinations(&names, home, refuge));
        scene = scene.promise(
            format!("{pool}: only the {orphans} clients of {VICTIM} moved, to {to}"),
            unwanted(home.moves(refuge).filter(|moved| moved.from != VICTIM)),
        );
    }
    scene = scene.promise(format!("{ROUND_ROBIN}: the others serve equally many"), uneven(&survivors, &turns));
    websocket_stays(scene, stage).await
}

/// The killed backend returns: compares the clients again.
pub(super) async fn one_back(stage: &mut DemoStage, homes: &Homes) -> Result<Scene, CommandError> {
    let refuge = stage.ask_keyed().await?;
    let remembered = stage.ask(STICK_TABLE).await?;
    stage.revive(VICTIM).await?;
    let back = stage.ask_keyed().await?;
    let turns = stage.ask(ROUND_ROBIN).await?;
    let names = stage.names();
    let [before, now] = [homes, &back].map(|[_, ring]| ring.counter(VICTIM));
    let mut scene = Scene::new("One backend back")
        .text(format!(
            "Backend {VICTIM} starts again and takes clients after its first good check. Its counter stood at \
             {before} and is at {now} now: its memory is lost. That is why clients should stay at their \
             backend."
        ))
        .show(&movement(&names, changes(&refuge, &back)));
    for (pool, home, back) in changes(homes, &back) {
        scene = scene.promise(
            format!("{pool}: all {} clients of {VICTIM} are back, and no other client moved", home.count(VICTIM)),
            unwanted(home.moves(back)),
        );
    }
    let rounds = [remembered, stage.ask(STICK_TABLE).await?];
    let text =
        format!("{STICK_TABLE}: clients that had to leave {VICTIM} stay at their new backend; no client moves twice");
    scene = scene.promise(text, astray(&rounds));
    scene = scene.promise(format!("{ROUND_ROBIN}: all serve equally many again"), uneven(&names, &turns));
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
    let text = format!("a WebSocket of {client}, open from the start, is still connected to {backend}");
    Ok(scene.promise(text, (!lives).then(|| "no echo came back".into())))
}

//! Tests of agents.

use std::sync::Mutex;

use super::*;
use crate::pool::AdminState;

/// An agent that says to every connection what it is told to say.
async fn agent(word: &'static str) -> (u16, Arc<Mutex<&'static str>>) {
    let (listener, says) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(Mutex::new(word)));
    let (port, word) = (listener.local_addr().unwrap().port(), Arc::clone(&says));
    tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            let line = *word.lock().unwrap();
            stream.write_all(line.as_bytes()).await.ok();
        }
    });
    (port, says)
}

#[tokio::test]
async fn an_agent_drains_its_backend_and_ends_that_and_takes_it_down() {
    let (_listener, address) = listen().await;
    let (port, says) = agent("drain\n").await;
    let mut settings = settings(CheckKind::Tcp);
    settings.check.agent = Some(port);
    let pool = Arc::new(Pool::new(&pool_of(&settings, &[("a", &address)]), None, 1));
    let backend = pool.backends()[0].clone();
    let mut probes = Probes::new(now_ms);
    probes.adopt(std::slice::from_ref(&pool), &Termination::default());
    until("drained", || backend.draining()).await;
    assert!(backend.is_drained_by_agent() && backend.standing() == CheckState::Up);
    // A line need not end, and a weight lifts the drain.
    *says.lock().unwrap() = "50%";
    until("ready again", || !backend.draining()).await;

    *says.lock().unwrap() = "down # broken disk\n";
    until("down", || backend.standing() == CheckState::Down).await;
    assert_eq!(backend.complaint(), "agent: down, broken disk");
    *says.lock().unwrap() = "up\n";
    until("up", || backend.standing() == CheckState::Up).await;

    // What a command has drained, an agent does not give back.
    assert!(pool.order("a", AdminState::Drain, now_ms()));
    *says.lock().unwrap() = "up drain\n";
    let asked = || backend.complaint();
    sleep(Duration::from_millis(50)).await;
    *says.lock().unwrap() = "down # once more\n";
    until("asked again", || asked().contains("once more")).await;
    assert!(backend.draining() && !backend.is_drained_by_agent());
}

#[tokio::test]
async fn an_agent_that_says_nothing_changes_nothing_and_one_that_is_gone_drains_no_more() {
    let (_listener, address) = listen().await;
    let (port, says) = agent("drain\n").await;
    let mut settings = settings(CheckKind::Tcp);
    settings.check.agent = Some(port);
    let mut config = pool_of(&settings, &[("a", &address)]);
    let pool = Arc::new(Pool::new(&config, None, 1));
    let backend = pool.backends()[0].clone();
    let mut probes = Probes::new(now_ms);
    probes.adopt(std::slice::from_ref(&pool), &Termination::default());
    until("drained", || backend.draining()).await;
    let mut agent = Agent::default();
    for nothing in ["", "what?\n"] {
        *says.lock().unwrap() = nothing;
        assert!(agent.ask(&backend, &settings, now_ms).await.is_ok());
        assert!(backend.draining(), "{nothing:?}");
    }
    config.check.as_mut().unwrap().agent = None;
    let without = Arc::new(Pool::new(&config, Some(&pool), 1));
    probes.adopt(std::slice::from_ref(&without), &Termination::default());
    assert!(!backend.draining());
}

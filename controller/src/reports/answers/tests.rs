//! Asked once, remembered for a time, and never pushed out by bad answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

const KEEP: Duration = Duration::from_secs(60);

fn key(number: u32) -> Key {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

/// A question that counts how often it was asked.
fn counted(
    asked: &Arc<AtomicUsize>,
    answer: Result<u32, Refusal>,
    keep: Duration,
) -> impl Future<Output = Verdict<u32>> + Send + use<> {
    let asked = Arc::clone(asked);
    async move {
        asked.fetch_add(1, Ordering::Relaxed);
        Verdict { answer, keep, grace: Duration::ZERO }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_holds_for_its_time() {
    let (answers, asked) = (Answers::new(), Arc::new(AtomicUsize::new(0)));
    for (answer, number) in [(Ok(7), 1), (Err(Refusal::NoNode), 2)] {
        asked.store(0, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(answers.of(key(number), counted(&asked, answer.clone(), KEEP)).await, answer);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(KEEP).await;
        assert_eq!(answers.of(key(number), counted(&asked, Ok(8), KEEP)).await, Ok(8));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_is_asked_again() {
    let (answers, asked) = (Answers::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..3 {
        let _ = answers.of(key(1), counted(&asked, Err(Refusal::NoNode), Duration::ZERO)).await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn many_who_wait_for_one_answer_ask_once_and_it_outlives_them() {
    let (answers, gate) = (Arc::new(Answers::new()), Arc::new(Semaphore::new(0)));
    let asked = Arc::new(AtomicUsize::new(0));
    let slow = || {
        let (gate, asked) = (Arc::clone(&gate), Arc::clone(&asked));
        async move {
            asked.fetch_add(1, Ordering::Relaxed);
            let _ = gate.acquire().await;
            Verdict { answer: Ok(7), keep: KEEP, grace: Duration::ZERO }
        }
    };
    let first = {
        let (answers, question) = (Arc::clone(&answers), slow());
        tokio::spawn(async move { answers.of(key(1), question).await })
    };
    let others: Vec<_> = (0..20)
        .map(|_| {
            let (answers, question) = (Arc::clone(&answers), slow());
            tokio::spawn(async move { answers.of(key(1), question).await })
        })
        .collect();
    while asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    gate.add_permits(100);
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(7));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_question_that_breaks_frees_its_place() {
    let answers: Answers<u32> = Answers::new();
    let broken = answers.of(key(1), async { panic!("broken") }).await;
    assert!(matches!(broken, Err(Refusal::Unreviewed { .. })));
    assert_eq!(
        answers.of(key(1), async { Verdict { answer: Ok(1), keep: KEEP, grace: Duration::ZERO } }).await,
        Ok(1)
    );
}

#[tokio::test]
async fn a_flood_of_bad_answers_pushes_no_good_one_out() {
    let (answers, asked) = (Answers::new(), Arc::new(AtomicUsize::new(0)));
    let _ = answers.of(key(0), counted(&asked, Ok(7), KEEP)).await;
    for number in 1..20_000 {
        let verdict = Verdict { answer: Err(Refusal::NoNode), keep: KEEP, grace: Duration::ZERO };
        let _ = lock(&answers.0).take(key(number), verdict, Instant::now());
    }
    assert_eq!(answers.of(key(0), counted(&asked, Ok(8), KEEP)).await, Ok(7));
    assert_eq!(lock(&answers.0).bad.len(), BAD.get());
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_outlasts_the_want_of_a_turn_for_its_grace_and_no_refusal() {
    let answers = Answers::new();
    let busy = Refusal::Busy { again: Duration::from_secs(5) };
    let good = || async { Verdict { answer: Ok(7), keep: KEEP, grace: KEEP } };
    let asked = |refusal: &Refusal| {
        let answer = Err(refusal.clone());
        async move { Verdict { answer, keep: Duration::ZERO, grace: Duration::ZERO } }
    };
    assert_eq!(answers.of(key(1), good()).await, Ok(7));
    tokio::time::advance(KEEP).await;
    assert!(answers.is_known(&key(1)) && !answers.is_known(&key(2)));
    assert_eq!(answers.of(key(1), asked(&busy)).await, Ok(7));
    assert_eq!(answers.of(key(2), asked(&busy)).await, Err(busy.clone()), "it was never good");
    tokio::time::advance(KEEP).await;
    assert_eq!(answers.of(key(1), asked(&busy)).await, Err(busy.clone()), "not for ever");
    assert_eq!(answers.of(key(1), good()).await, Ok(7));
    tokio::time::advance(KEEP).await;
    assert_eq!(answers.of(key(1), asked(&Refusal::NoNode)).await, Err(Refusal::NoNode));
    assert_eq!(answers.of(key(1), asked(&busy)).await, Err(busy), "denied meanwhile");
}

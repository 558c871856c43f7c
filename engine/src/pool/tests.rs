//! Every chunk of a run is done once, in whose order it should be; callers share, nest and hear of panics; threads end.

use super::*;

/// Checks that each chunk runs once; the marks are relaxed, so only the pool makes them visible.
fn check(pool: &Pool, chunks: usize) {
    let marks: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
    pool.run(chunks, &|_, i| _ = marks[i].fetch_add(1, Ordering::Relaxed));
    assert!(marks.iter().all(|mark| mark.load(Ordering::Relaxed) == 1), "{chunks} chunks");
}

#[test]
fn no_two_threads_of_a_run_have_one_number() {
    let pool = Pool::new(3);
    let busy: Vec<AtomicBool> = (0..pool.threads()).map(|_| AtomicBool::new(false)).collect();
    for _ in 0..2000 {
        pool.run(16, &|thread, _| {
            assert!(!busy[thread].swap(true, Ordering::Relaxed), "thread {thread} twice");
            std::hint::spin_loop();
            busy[thread].store(false, Ordering::Relaxed);
        });
    }
}

#[test]
fn every_chunk_runs_once() {
    let mut random = 1u32;
    for threads in 1..=4 {
        let pool = Pool::new(threads);
        for _ in 0..1000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            check(&pool, [0, 1, 2, 3, 7, 8, 64, 1000][(random >> 29) as usize]);
        }
        check(&pool, 0x1_0000);
    }
}

#[test]
fn a_side_is_claimed_from_its_start_by_its_own_and_from_its_end_by_others() {
    let mut side = Unclaimed::new(u64::from(u32::MAX), 3..7);
    let mut claimed = Vec::new();
    for last in [false, true, false, true] {
        let (rest, chunk) = side.claim(last).expect("four chunks");
        assert_eq!(rest.generation(), u64::from(u32::MAX));
        (side, _) = (rest, claimed.push(chunk));
    }
    assert_eq!(claimed, [3, 6, 4, 5]);
    assert!(side.claim(false).is_none() && side.claim(true).is_none());
    assert_eq!(Unclaimed::new(side.generation() + 1, 0..65_535).chunks(), 0..65_535);
}

#[test]
fn a_thread_goes_through_its_own_side_in_order() {
    let pool = Pool::new(2);
    let mut helped = 0;
    for chunks in [2, 7, 8, 33] {
        for _ in 0..200 {
            let places: Vec<[AtomicU32; 2]> = (0..chunks).map(|_| Default::default()).collect();
            let done = [const { AtomicU32::new(0) }; 2];
            pool.run(chunks, &|thread, chunk| {
                let place = done[thread].fetch_add(1, Ordering::Relaxed);
                places[chunk][thread].store(place + 1, Ordering::Relaxed);
                spin(Duration::from_micros(2), || false);
            });
            let middle = chunks.div_ceil(2);
            for (thread, own) in [(0, 0..middle), (1, middle..chunks)] {
                let order = |range: &mut dyn Iterator<Item = usize>| -> Vec<u32> {
                    let places = range.map(|chunk| places[chunk][thread].load(Ordering::Relaxed));
                    places.filter(|place| *place > 0).collect()
                };
                let other = if thread == 0 { middle..chunks } else { 0..middle };
                let mut order_of = order(&mut own.clone());
                order_of.extend(order(&mut other.rev()));
                assert!(order_of.is_sorted(), "thread {thread} of {chunks} chunks: {order_of:?}");
                helped += usize::from(thread == 1 && !order_of.is_empty());
            }
        }
    }
    assert!(helped > 0, "the worker never came");
}

#[test]
fn nothing_touches_a_job_after_it_returned() {
    let pool = Pool::new(3);
    for salt in 0..20_000 {
        let buffer: [AtomicU32; 8] = std::array::from_fn(|_| AtomicU32::new(u32::MAX));
        pool.run(8, &|_, i| buffer[i].store(salt + i as u32, Ordering::Relaxed));
        assert_eq!(buffer.map(AtomicU32::into_inner), std::array::from_fn(|i| salt + i as u32));
    }
}

#[test]
fn callers_share_and_runs_nest() {
    let pool = Pool::new(2);
    std::thread::scope(|scope| {
        (0..3).for_each(|_| _ = scope.spawn(|| (0..2000).for_each(|_| check(&pool, 16))));
    });
    pool.run(8, &|_, _| check(&pool, 8));
}

#[test]
fn a_parked_worker_wakes_and_a_panic_reaches_the_waiting_caller() {
    let pool = Pool::new(2);
    for worker_panics in [true, false] {
        std::thread::sleep(Duration::from_millis(20));
        let (started, finished) = (AtomicU32::new(0), AtomicBool::new(false));
        let task = |_: usize, _: usize| {
            // Both threads have a chunk before either goes on, so the worker woke.
            started.fetch_add(1, Ordering::Relaxed);
            assert!(spin(Duration::from_secs(10), || started.load(Ordering::Relaxed) == 2));
            if (std::thread::current().name() == Some("tiller-worker-1")) == worker_panics {
                resume_unwind(Box::new("thrown by a task"));
            }
            std::thread::sleep(Duration::from_millis(5));
            finished.store(true, Ordering::Relaxed);
        };
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(2, &task)));
        assert_eq!(result.err().and_then(|panic| panic.downcast_ref().copied()), Some("thrown by a task"));
        assert!(finished.into_inner());
        check(&pool, 64);
    }
}

#[test]
fn a_limit_holds_from_the_next_job_on_and_can_be_lifted() {
    let pool = Pool::new(3);
    let workers_of = |pool: &Pool| {
        let seen = AtomicU64::new(0);
        for _ in 0..200 {
            pool.run(32, &|thread, _| {
                seen.fetch_or(1 << thread, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(20));
            });
        }
        seen.into_inner()
    };
    for (limit, allowed) in [(1, 0b001), (2, 0b011), (0, 0b001), (2, 0b011), (64, 0b111)] {
        pool.limit(limit);
        assert_eq!(pool.active(), limit.clamp(1, 3));
        // A worker may be between its look at the limit and the next job.
        let beyond = 0b11 & !(allowed >> 1);
        assert!(spin(Duration::from_secs(10), || pool.shared.asleep.0.load(Ordering::SeqCst) & beyond == beyond));
        assert_eq!(workers_of(&pool), allowed, "limit {limit}");
    }
    assert_eq!(pool.threads(), 3);
    pool.limit(1);
    drop(pool);
}

#[test]
fn what_is_expected_changes_nothing() {
    let pool = Pool::new(3);
    for bytes in [0, 1, 64, 100_000] {
        let gone = vec![0; bytes];
        for parts in [0, 1, 8, 200_000] {
            pool.expect(&gone, parts);
            check(&pool, 8);
        }
        drop(gone);
        check(&pool, 8);
    }
}

#[test]
fn dropping_joins_the_threads() {
    // No other test has a sixth worker. The system takes a moment to show a name, and to forget an ended thread.
    let shown = || {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "tiller-worker-6").count()
    };
    let shows = |count| cfg!(not(target_os = "linux")) || spin(Duration::from_secs(10), || shown() == count);
    let pool = Pool::new(7);
    assert!(shows(1));
    let shared = Arc::downgrade(&pool.shared);
    drop(pool);
    assert!(shared.upgrade().is_none() && shows(0));
}

#[test]
fn the_shared_pool_lasts_as_long_as_it_is_held() {
    let (first, second) = (shared(), shared());
    assert!(Arc::ptr_eq(&first, &second) && (1..=first.threads()).contains(&first.active()));
    let gone = Arc::downgrade(&first);
    drop((first, second));
    assert!(gone.upgrade().is_none());
    check(&shared(), 64);
}

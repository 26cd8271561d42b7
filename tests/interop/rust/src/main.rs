// SPDX-License-Identifier: GPL-3.0-or-later

//! Two users of matrix-rust-sdk on sliding sync, as Element X has it: sync service, room list,
//! encryption sync, timelines. Prints a line for each check and `N passed, N failed`; the first one
//! that fails ends the run, with exit code 1.
//!
//!     myelin-interop-rust http://127.0.0.1:8008 [RESTART]
//!
//! RESTART is a command that restarts the server, and returns when it answers again; with it the
//! clients go on over a restart in the middle.

use std::{
    future::Future,
    process::ExitCode,
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc,
    },
    time::Duration,
};

use anyhow::{bail, Context as _, Result};
use futures_util::{pin_mut, StreamExt as _};
use matrix_sdk::{
    ruma::{
        api::client::{
            account::register::v3::Request as RegisterRequest,
            receipt::create_receipt::v3::ReceiptType,
            room::create_room::v3::Request as CreateRoomRequest,
            uiaa::{AuthData, Dummy},
        },
        assign,
        events::room::{
            encryption::{InitialRoomEncryptionEvent, RoomEncryptionEventContent},
            message::RoomMessageEventContent,
            name::RoomNameEventContent,
        },
        OwnedRoomId,
    },
    sliding_sync::VersionBuilder,
    Client, Room, RoomState,
};
use matrix_sdk_ui::{
    room_list_service::filters::new_filter_non_left,
    sync_service::{State, SyncService},
    timeline::{RoomExt as _, Timeline},
};

const PATIENCE: Duration = Duration::from_secs(30);
static PASSED: AtomicUsize = AtomicUsize::new(0);

struct Person {
    client: Client,
    sync: Arc<SyncService>,
}

async fn sign_up(homeserver: &str, name: &str) -> Result<Person> {
    let client = Client::builder()
        .homeserver_url(homeserver)
        .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
        .build()
        .await?;
    let request = assign!(RegisterRequest::new(), {
        username: Some(name.to_owned()),
        password: Some("correct horse battery".to_owned()),
        auth: Some(AuthData::Dummy(Dummy::new())),
    });
    client.matrix_auth().register(request).await?;
    client
        .encryption()
        .wait_for_e2ee_initialization_tasks()
        .await;
    let sync = Arc::new(SyncService::builder(client.clone()).build().await?);
    sync.start().await;
    Ok(Person { client, sync })
}

/// Asks until the answer is yes.
async fn until<F, Fut>(what: &str, mut ask: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = tokio::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if ask().await {
            println!("ok    {what} ({} ms)", start.elapsed().as_millis());
            PASSED.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{what}: not within {} s", PATIENCE.as_secs())
}

fn room_of(person: &Person, room_id: &OwnedRoomId) -> Result<Room> {
    person
        .client
        .get_room(room_id)
        .with_context(|| format!("{room_id} is not known"))
}

async fn has_message(timeline: &Timeline, body: &str) -> bool {
    timeline.items().await.iter().any(|item| {
        item.as_event()
            .and_then(|event| event.content().as_message())
            .is_some_and(|message| message.body() == body)
    })
}

/// The names that the room list shows, in its order.
async fn list_names(person: &Person) -> Result<Vec<String>> {
    let rooms = person.sync.room_list_service().all_rooms().await?;
    let (entries, controller) = rooms.entries_with_dynamic_adapters(50);
    pin_mut!(entries);
    controller.set_filter(Box::new(new_filter_non_left()));
    let mut names = Vec::new();
    let first = tokio::time::timeout(Duration::from_secs(5), entries.next()).await?;
    for diff in first.unwrap_or_default() {
        if let eyeball_im::VectorDiff::Reset { values } = diff {
            names = values
                .iter()
                .map(|room| {
                    room.cached_display_name()
                        .map(|n| n.to_string())
                        .unwrap_or_default()
                })
                .collect();
        }
    }
    Ok(names)
}

async fn create_room(person: &Person, name: &str, invite: &Person) -> Result<OwnedRoomId> {
    let encryption = InitialRoomEncryptionEvent::new(
        matrix_sdk::ruma::events::EmptyStateKey,
        RoomEncryptionEventContent::with_recommended_defaults(),
    );
    let request = assign!(CreateRoomRequest::new(), {
        name: Some(name.to_owned()),
        invite: vec![invite.client.user_id().context("no user")?.to_owned()],
        initial_state: vec![encryption.to_raw_any()],
    });
    Ok(person
        .client
        .create_room(request)
        .await?
        .room_id()
        .to_owned())
}

/// The server forgets all connections of sliding sync: M_UNKNOWN_POS makes the client begin anew.
async fn restart_server(command: &str) -> Result<()> {
    let command = command.to_owned();
    let status = tokio::task::spawn_blocking(move || {
        std::process::Command::new("sh")
            .args(["-c", &command])
            .status()
    })
    .await??;
    if !status.success() {
        bail!("the server does not start again");
    }
    Ok(())
}

/// Starts a sync that met the closed door, as an application does.
async fn keep_running(people: &[&Person]) {
    for person in people {
        let state = person.sync.state().get();
        if !matches!(state, State::Running) {
            println!("      the sync service is started again: {state:?}");
            person.sync.start().await;
        }
    }
}

async fn play(homeserver: &str, restart: Option<&str>) -> Result<()> {
    let salt = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_millis();
    let alice = sign_up(homeserver, &format!("alice{salt}")).await?;
    let bob = sign_up(homeserver, &format!("bob{salt}")).await?;
    for person in [&alice, &bob] {
        let sync = person.sync.clone();
        until("the sync service runs", move || {
            let state = sync.state().get();
            async move { matches!(state, State::Running) }
        })
        .await?;
    }

    let room_id = create_room(&alice, "Garden", &bob).await?;
    until("the invite arrives", || async {
        bob.client
            .get_room(&room_id)
            .is_some_and(|room| room.state() == RoomState::Invited)
    })
    .await?;
    let bobs = room_of(&bob, &room_id)?;
    until("the invite has the room's name", || async {
        bobs.display_name()
            .await
            .is_ok_and(|name| name.to_string() == "Garden")
    })
    .await?;

    bobs.join().await?;
    until("the join arrives", || async {
        bobs.state() == RoomState::Joined
            && bobs
                .latest_encryption_state()
                .await
                .is_ok_and(|e| e.is_encrypted())
    })
    .await?;
    let alices = room_of(&alice, &room_id)?;
    until("the other sees the join", || async {
        alices.joined_members_count() == 2
    })
    .await?;

    for person in [&alice, &bob] {
        person
            .sync
            .room_list_service()
            .subscribe_to_rooms(&[&room_id])
            .await;
    }
    let alices_timeline = alices.timeline().await?;
    let bobs_timeline = bobs.timeline().await?;
    alices_timeline
        .send(RoomMessageEventContent::text_plain("hello bob").into())
        .await?;
    until("the message arrives and is decrypted", || {
        has_message(&bobs_timeline, "hello bob")
    })
    .await?;
    bobs_timeline
        .send(RoomMessageEventContent::text_plain("hello alice").into())
        .await?;
    until("the answer arrives and is decrypted", || {
        has_message(&alices_timeline, "hello alice")
    })
    .await?;

    until("the room list shows the room", || async {
        list_names(&bob)
            .await
            .is_ok_and(|names| names == ["Garden"])
    })
    .await?;
    until("the unread count counts", || async {
        alices.num_unread_messages() == 1
    })
    .await?;
    alices_timeline.mark_as_read(ReceiptType::Read).await?;
    until("the receipt clears it", || async {
        alices.num_unread_messages() == 0
    })
    .await?;

    alices
        .send_state_event(RoomNameEventContent::new("Orchard".to_owned()))
        .await?;
    until("the new name arrives", || async {
        list_names(&bob)
            .await
            .is_ok_and(|names| names == ["Orchard"])
    })
    .await?;

    let second = room_of(&bob, &create_room(&bob, "Pond", &alice).await?)?;
    let second_timeline = second.timeline().await?;
    second_timeline
        .send(RoomMessageEventContent::text_plain("frogs").into())
        .await?;
    until(
        "the room with the newest message comes first in the list",
        || async {
            list_names(&bob)
                .await
                .is_ok_and(|names| names == ["Pond", "Orchard"])
        },
    )
    .await?;

    alice.sync.stop().await;
    bobs_timeline
        .send(RoomMessageEventContent::text_plain("while away").into())
        .await?;
    alice.sync.start().await;
    until("what came while the sync was stopped arrives", || {
        has_message(&alices_timeline, "while away")
    })
    .await?;

    alice.sync.expire_sessions().await;
    alice.sync.start().await;
    bobs_timeline
        .send(RoomMessageEventContent::text_plain("anew").into())
        .await?;
    until("a new connection goes on", || {
        has_message(&alices_timeline, "anew")
    })
    .await?;

    if let Some(command) = restart {
        restart_server(command).await?;
        bobs_timeline
            .send(RoomMessageEventContent::text_plain("after the restart").into())
            .await?;
        until(
            "what comes after a restart of the server arrives",
            || async {
                keep_running(&[&alice, &bob]).await;
                has_message(&alices_timeline, "after the restart").await
            },
        )
        .await?;
        alices_timeline
            .send(RoomMessageEventContent::text_plain("so it did").into())
            .await?;
        until("and so does the answer", || async {
            keep_running(&[&alice, &bob]).await;
            has_message(&bobs_timeline, "so it did").await
        })
        .await?;
    }

    bobs.leave().await?;
    until("who leaves has left", || async {
        bobs.state() == RoomState::Left
    })
    .await?;
    until("the other sees it", || async {
        alices.joined_members_count() == 1
    })
    .await?;
    alice.sync.stop().await;
    bob.sync.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(homeserver) = std::env::args().nth(1) else {
        eprintln!("usage: myelin-interop-rust URL [RESTART]");
        return ExitCode::from(2);
    };
    let restart = std::env::args().nth(2);
    let outcome = play(&homeserver, restart.as_deref()).await;
    if let Err(error) = &outcome {
        println!("FAILED {error:#}");
    }
    let passed = PASSED.load(Ordering::Relaxed);
    println!("{passed} passed, {} failed", u8::from(outcome.is_err()));
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

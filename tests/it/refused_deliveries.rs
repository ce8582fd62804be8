//! Webhook deliveries whose result the database rejects are not repeated needlessly.

use assistd::store;

use crate::client::Client;
use crate::cluster::Db;
use crate::eventually;
use crate::server::Server;
use crate::webhook_receiver::{ALLOW_PRIVATE_ADDRESSES, WebhookReceiver};

/// A server with a webhook receiver, on a database that rejects rows.
struct DeliveryFixture {
    db: Db,
    receiver: WebhookReceiver,
    client: Client,
    _server: Server,
}

impl DeliveryFixture {
    async fn new() -> Self {
        let db = Db::new().await;
        let receiver = WebhookReceiver::start().await;
        let project = store::projects::find_or_create(&db.pool, "default").await;
        let project = project.expect("the database answers");
        receiver.subscribe(&db.pool, &project, &[]).await;
        let server = Server::start(&db, &[ALLOW_PRIVATE_ADDRESSES]).await;
        Self {
            client: server.client(),
            db,
            receiver,
            _server: server,
        }
    }

    /// Causes an event.
    async fn run(&self) {
        let assistant = self.client.create_assistant("hello").await;
        let thread = self.client.create_thread("Hello?").await;
        self.client.create_run(&thread, &assistant).await;
    }

    /// Whether the delivery has ended, its failures, and its last error.
    async fn delivery(&self) -> (bool, i32, String) {
        sqlx::query_as(
            "select due_at is null, failures, coalesce(last_error, '') from webhook_deliveries",
        )
        .fetch_one(&self.db.pool)
        .await
        .expect("there is one delivery")
    }

    /// Waits until the delivery has ended.
    async fn abandoned(&self) -> (i32, String) {
        eventually("the end of the delivery", || async {
            let (is_over, failures, error) = self.delivery().await;
            is_over.then_some((failures, error))
        })
        .await
    }

    async fn make_due(&self, attempts: i32) {
        sqlx::query("update webhook_deliveries set due_at = now(), attempt = attempt + $1")
            .bind(attempts)
            .execute(&self.db.pool)
            .await
            .expect("the database answers");
    }
}

#[tokio::test]
async fn an_event_that_was_accepted_is_not_sent_again_because_that_is_refused() {
    let fixture = DeliveryFixture::new().await;
    let delivered = "new.delivered_at is not null";
    fixture
        .db
        .reject_rows("webhook_deliveries", delivered, "P0001")
        .await;
    fixture.run().await;
    fixture.receiver.accept("thread.run.completed").await;
    let (failures, error) = fixture.abandoned().await;
    assert_eq!(failures, 0);
    assert!(error.contains("could not be stored"), "{error}");
    assert!(fixture.receiver.is_idle().await);
}

#[tokio::test]
async fn a_failure_whose_text_is_refused_still_counts() {
    let fixture = DeliveryFixture::new().await;
    let text = "new.last_error like '%500%'";
    fixture
        .db
        .reject_rows("webhook_deliveries", text, "22021")
        .await;
    fixture.run().await;
    fixture.receiver.next_delivery().await.answer(500);
    let error = eventually("the failure", || async {
        let (_, failures, error) = fixture.delivery().await;
        (failures == 1).then_some(error)
    })
    .await;
    assert!(error.contains("could not be stored"), "{error}");
    fixture.make_due(0).await;
    fixture.receiver.accept("thread.run.completed").await;
}

#[tokio::test]
async fn a_delivery_without_results_is_abandoned_after_so_many_attempts() {
    let fixture = DeliveryFixture::new().await;
    let failed = "new.failures > 0";
    fixture
        .db
        .reject_rows("webhook_deliveries", failed, "P0001")
        .await;
    fixture.run().await;
    fixture.receiver.next_delivery().await.answer(500);
    fixture.make_due(20).await;
    let (failures, error) = fixture.abandoned().await;
    assert_eq!(failures, 0);
    assert!(error.contains("could not be stored"), "{error}");
    assert!(fixture.receiver.is_idle().await, "nothing was posted again");
}

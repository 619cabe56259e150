//! The demo from its first line to its last.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use super::{
    DemoError, Summary,
    broker::Broker,
    ledger::Ledger,
    order_service::{self, OrderService},
    reader::{Reader, Reading},
    screen::Screen,
    server::Server,
};
use crate::{
    event::{self, TopicTemplate, outbox},
    pipeline::{self, KafkaSettings, LargeTransactions, Requests, Shutdown, ShutdownTrigger},
    postgres::{PublicationName, SlotName, TableName},
    sink::kafka::{Delivery, Partitioner, TopicSettings},
};

/// How long orders come in where nothing else is asked for.
const DURATION: Duration = Duration::from_secs(15);

/// Where the events go, by the template `{domain}.events`.
const TOPIC: &str = "order.events";

/// How long the pipeline may take to begin: a first start is done in a second.
const BEGIN_MAX: Duration = Duration::from_secs(30);

/// How long committed events may take to come out, once orders are over.
const COMPLETE_MAX: Duration = Duration::from_secs(10);

/// How long the pipeline may take to stop: it promises 5 s.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Between two looks at what another part does.
const LOOK: Duration = Duration::from_millis(10);

/// What can be asked of the demo.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// How long orders come in; 15 s where not said.
    pub duration: Option<Duration>,
    /// A real Kafka: `host:port`, separated by commas.
    pub brokers: Option<String>,
}

/// Runs the demo and shows it on standard output. Must be called within a tokio runtime.
///
/// SIGINT, SIGTERM and SIGHUP end it early, with the summary.
///
/// # Errors
/// Where a part of it cannot start or go on. Whatever was started has ended and left no files.
pub async fn run(settings: Settings) -> Result<Summary, DemoError> {
    let (trigger, end) = ShutdownTrigger::new();
    let trigger = Arc::new(trigger);
    end_on_signals(&trigger)?;
    let demo = Demo { screen: Screen::new(trigger), ledger: Arc::default(), end };
    demo.perform(&settings).await?;
    let summary = demo.ledger.summary();
    demo.show_summary(&summary);
    Ok(summary)
}

fn end_on_signals(trigger: &Arc<ShutdownTrigger>) -> Result<(), DemoError> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).map_err(|source| DemoError::Server {
            action: "listen to signals".to_owned(),
            source,
        })?;
        let trigger = Arc::clone(trigger);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                trigger.request();
            }
        });
    }
    Ok(())
}

struct Demo {
    screen: Screen,
    ledger: Arc<Ledger>,
    end: Shutdown,
}

impl Demo {
    /// Everything that is started here ends here: reader, pipeline, broker, PostgreSQL.
    async fn perform(&self, settings: &Settings) -> Result<(), DemoError> {
        if let Some(brokers) = &settings.brokers {
            self.screen.say(format_args!("asking {brokers} for topic {TOPIC} ..."));
        }
        // Before all else: a wrong address is best told at once.
        let broker = Broker::start(settings.brokers.clone())?;
        let mut end = self.end.clone();
        tokio::select! {
            made = broker.ensure_topic(TOPIC) => made?,
            () = end.requested() => return Ok(()),
        }
        self.screen.say("starting a throwaway PostgreSQL ...");
        let Some(server) = Server::start(&mut end).await? else { return Ok(()) };
        let orders = OrderService::start(&server).await?;
        let mut reader = tokio::select! {
            reader = self.start_reader(&broker) => reader?,
            () = end.requested() => return Ok(()),
        };
        let duration = settings.duration.unwrap_or(DURATION);
        self.show_head(&orders, &server, &broker, duration).await?;

        let pipeline_settings = pipeline_settings(&server, &broker);
        let (stop, shutdown) = ShutdownTrigger::new();
        let requests = Requests::default();
        let mut publishing = pin!(pipeline::run(&pipeline_settings, &requests, shutdown));
        let outcome = tokio::select! {
            stopped = &mut publishing => {
                let failure = stopped.expect_err("a pipeline that nobody stops ends on a failure");
                return Err(DemoError::of_pipeline(&*failure));
            }
            error = reader.failed() => Err(error),
            outcome = self.take_orders(&orders, duration) => outcome,
        };
        stop.request();
        let stopped = timeout(STOP_MAX, publishing).await;
        outcome?;
        match stopped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(DemoError::of_pipeline(&*failure)),
            Err(_) => Err(DemoError::PipelineNotStopped { limit: STOP_MAX }),
        }
    }

    async fn start_reader(&self, broker: &Broker) -> Result<Reader, DemoError> {
        let reading = Reading {
            brokers: broker.address(),
            administration: broker.administration(),
            topic: TOPIC.to_owned(),
            ledger: Arc::clone(&self.ledger),
            screen: self.screen.clone(),
        };
        Reader::start(reading).await
    }

    /// Orders until the time is over or the end is asked for, then waits for their events.
    async fn take_orders(
        &self,
        orders: &OrderService,
        duration: Duration,
    ) -> Result<(), DemoError> {
        let mut end = self.end.clone();
        let deadline = Instant::now() + BEGIN_MAX;
        while !orders.is_published().await? {
            if Instant::now() > deadline {
                return Err(DemoError::PipelineNotStarted { limit: BEGIN_MAX });
            }
            if end.is_requested() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        let began_at = Instant::now();
        while !end.is_requested() && began_at.elapsed() < duration {
            orders.take_order(&self.ledger).await?;
            tokio::select! {
                () = end.requested() => {}
                () = sleep(order_service::pause()) => {}
            }
        }
        let deadline = Instant::now() + COMPLETE_MAX;
        while !self.ledger.is_complete() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn show_head(
        &self,
        orders: &OrderService,
        server: &Server,
        broker: &Broker,
        duration: Duration,
    ) -> Result<(), DemoError> {
        let version = orders.server_version().await?;
        let kafka = match broker {
            Broker::Embedded(_) => "embedded broker",
            Broker::Real(_) => "Kafka",
        };
        let address = broker.address();
        let folder = server.socket_folder().display();
        let seconds = duration.as_secs_f64();
        let screen = &self.screen;
        screen
            .stress(format_args!("order service -> PostgreSQL {version} -> tailwater -> {kafka}"));
        screen.say(format_args!("ends after {seconds} s, or with Ctrl-C; look on from elsewhere:"));
        screen.say(format_args!("  kcat -b {address} -t {TOPIC} -C"));
        screen.say(format_args!(
            "  psql -h {folder} -U postgres {} -c 'SELECT * FROM outbox_events'",
            order_service::DATABASE
        ));
        if let Broker::Embedded(_) = broker {
            screen.say(
                "The embedded broker speaks Kafka's protocol but takes transactions on trust; \
                 --brokers uses a real Kafka.",
            );
        }
        screen.say("");
        screen.columns();
        Ok(())
    }

    fn show_summary(&self, summary: &Summary) {
        let Summary { transactions_rolled_back, uncommitted, .. } = summary;
        self.screen.say("");
        if *transactions_rolled_back > 0 {
            self.screen.say(format_args!(
                "{transactions_rolled_back} more transactions were rolled back; \
                 {uncommitted} of their events were published"
            ));
        }
        self.screen.stress(summary);
    }
}

fn pipeline_settings(server: &Server, broker: &Broker) -> pipeline::Settings {
    // A new name for each demo: a real Kafka remembers sources, and refuses one that comes back
    // from another cluster.
    let source = format!("tailwater-demo-{:012x}", fastrand::u64(..1 << 48));
    let outbox = outbox::Settings {
        table: ("public".to_owned(), "outbox_events".to_owned()),
        topic: TopicTemplate::parse("{domain}.events").expect("the template is a known one"),
        payload: outbox::PayloadForm::Envelope,
        columns: outbox::ColumnNames::default(),
        headers: Vec::new(),
    };
    let name = || "tailwater".to_owned();
    pipeline::Settings {
        source: source.clone(),
        postgres: server.settings(order_service::DATABASE, "tailwater"),
        slot: SlotName::try_from(name()).expect("the name is a known one"),
        publication: PublicationName::try_from(name()).expect("the name is a known one"),
        failover: false,
        retained_wal_bytes_max: None,
        tables: vec![
            TableName::try_from("public.outbox_events".to_owned())
                .expect("the name is a known one"),
        ],
        retentions: Vec::new(),
        event: event::Settings {
            source,
            outboxes: vec![outbox],
            messages: Vec::new(),
            tables: Vec::new(),
            routes: Vec::new(),
        },
        dead_letters: None,
        kafka: KafkaSettings {
            brokers: broker.address(),
            properties: BTreeMap::new(),
            checkpoint_topic: "__tailwater_checkpoints".to_owned(),
            partitioner: Partitioner::Murmur2,
            delivery: Delivery::ExactlyOnce,
            large_transactions: LargeTransactions::Split,
            outage_grace: Duration::from_secs(60),
            transaction_interval: Duration::from_millis(50),
            transaction_bytes: 8 << 20,
            create_topics: true,
            topic: TopicSettings::default(),
            administration: broker.administration(),
        },
    }
}

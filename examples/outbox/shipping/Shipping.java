import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Packs a parcel for each order. An event may come again, after a crash or by a replay of the topic;
 * its id and its effect are committed together, so it counts once.
 */
final class Shipping {
    private static final String TAKE_ID =
        "INSERT INTO shipping.handled_events (id) VALUES (?) ON CONFLICT DO NOTHING";
    private static final String PACK = """
        INSERT INTO shipping.shipments (order_id, parcels) VALUES (?, 1)
        ON CONFLICT (order_id) DO UPDATE SET parcels = shipments.parcels + 1""";

    public static void main(String[] arguments) throws Exception {
        Map<String, Object> properties = Map.of(
            "bootstrap.servers", System.getenv("KAFKA_BROKERS"),
            "group.id", System.getenv().getOrDefault("GROUP", "shipping"),
            // The Java client's default is read_uncommitted, which sees what was aborted too.
            "isolation.level", "read_committed",
            "auto.offset.reset", "earliest",
            // Offsets are committed after the database.
            "enable.auto.commit", "false",
            "key.deserializer", StringDeserializer.class,
            "value.deserializer", StringDeserializer.class);
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties);
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                ended.await();
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }));
        try (consumer; Connection database = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            database.setAutoCommit(false);
            consumer.subscribe(List.of("order.events"));
            while (true) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofSeconds(1));
                for (ConsumerRecord<String, String> record : records) {
                    handle(database, record);
                }
                consumer.commitSync();
            }
        } catch (WakeupException stopped) {
            // As asked.
        } finally {
            ended.countDown();
        }
    }

    private static void handle(Connection database, ConsumerRecord<String, String> record)
            throws SQLException {
        // What the headers say needs no look into the value.
        if (!text(record, "event-type").equals("order.placed")) {
            return;
        }
        UUID id = UUID.fromString(text(record, "event-id"));
        boolean isFirst;
        try (PreparedStatement take = database.prepareStatement(TAKE_ID)) {
            take.setObject(1, id);
            isFirst = take.executeUpdate() == 1;
        }
        if (isFirst) {
            try (PreparedStatement pack = database.prepareStatement(PACK)) {
                pack.setString(1, record.key());
                pack.executeUpdate();
            }
        }
        database.commit();
        System.out.println((isFirst ? "handled " : "seen before ") + record.key() + " " + id);
    }

    private static String text(ConsumerRecord<String, String> record, String name) {
        Header header = record.headers().lastHeader(name);
        return header == null ? "" : new String(header.value());
    }
}

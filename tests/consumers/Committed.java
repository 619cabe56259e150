import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * The Java client as a read_committed consumer: all of some topics, each partition to the high
 * watermark that it had at the start. Arguments: brokers, topics. Standard output: records, as
 * {@link DataOutputStream} writes them, after a 1 each; a 0 at the end.
 */
final class Committed {
    private static Map<String, Object> properties(String brokers, String isolation) {
        Map<String, Object> properties = new HashMap<>();
        properties.put("bootstrap.servers", brokers);
        properties.put("isolation.level", isolation);
        properties.put("enable.auto.commit", "false");
        properties.put("key.deserializer", ByteArrayDeserializer.class);
        properties.put("value.deserializer", ByteArrayDeserializer.class);
        return properties;
    }

    public static void main(String[] arguments) throws IOException {
        String brokers = arguments[0];
        List<TopicPartition> partitions = new ArrayList<>();
        Map<TopicPartition, Long> ends;
        try (KafkaConsumer<byte[], byte[]> all = new KafkaConsumer<>(properties(brokers, "read_uncommitted"))) {
            for (int i = 1; i < arguments.length; i++) {
                all.partitionsFor(arguments[i]).forEach(info ->
                    partitions.add(new TopicPartition(info.topic(), info.partition())));
            }
            ends = all.endOffsets(partitions);
        }
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties(brokers, "read_committed"));
                DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16))) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    write(out, record);
                }
            }
            out.writeByte(0);
        }
    }

    private static void write(DataOutputStream out, ConsumerRecord<byte[], byte[]> record) throws IOException {
        out.writeByte(1);
        bytes(out, record.topic().getBytes());
        out.writeInt(record.partition());
        out.writeLong(record.offset());
        out.writeLong(record.timestamp());
        bytes(out, record.key());
        bytes(out, record.value());
        Header[] headers = record.headers().toArray();
        out.writeInt(headers.length);
        for (Header header : headers) {
            bytes(out, header.key().getBytes());
            bytes(out, header.value());
        }
    }

    private static void bytes(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes == null ? -1 : bytes.length);
        if (bytes != null) {
            out.write(bytes);
        }
    }
}

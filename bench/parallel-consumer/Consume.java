import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.lang.management.ManagementFactory;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Confluent's Parallel Consumer over a topic that holds so many events: in order per key, each event so much work (a sleep), offsets
 * committed as it does by default. Twice in one process, each time under a group that begins at the beginning: the first time what
 * the JVM has compiled is thrown in. One line of JSON for the second time.
 *
 * usage: java -cp 'jars/*' Consume.java BROKERS TOPIC GROUP EVENTS WORK_MS MAX_CONCURRENCY
 */
public final class Consume {
    private static final long PATIENCE_S = 300;

    public static void main(String[] args) throws Exception {
        String brokers = args[0], topic = args[1], group = args[2];
        long events = Long.parseLong(args[3]), workMs = Long.parseLong(args[4]);
        int maxConcurrency = Integer.parseInt(args[5]);
        once(brokers, topic, group + "-warm", events, workMs, maxConcurrency);
        double cpuBefore = cpuSeconds();
        double seconds = once(brokers, topic, group, events, workMs, maxConcurrency);
        System.out.printf(
            Locale.ROOT, "{\"seconds\": %.6f, \"cpu_seconds\": %.3f}%n", seconds, cpuSeconds() - cpuBefore);
        // Threads of it that are still at work would keep the JVM.
        System.exit(0);
    }

    /** Seconds from the making of the consumer to the end of the last event's work. */
    private static double once(
            String brokers, String topic, String group, long events, long workMs, int maxConcurrency) throws Exception {
        var done = new AtomicLong();
        var last = new CountDownLatch(1);
        long begun = System.nanoTime();
        var consumer = new KafkaConsumer<byte[], byte[]>(settings(brokers, group));
        var options = ParallelConsumerOptions.<byte[], byte[]>builder()
            .consumer(consumer)
            .ordering(ProcessingOrder.KEY)
            .commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
            .maxConcurrency(maxConcurrency)
            .build();
        var processor = ParallelStreamProcessor.createEosStreamProcessor(options);
        processor.subscribe(List.of(topic));
        processor.poll(context -> {
            work(workMs);
            if (done.incrementAndGet() == events) {
                last.countDown();
            }
        });
        boolean isDone = last.await(PATIENCE_S, TimeUnit.SECONDS);
        double seconds = (System.nanoTime() - begun) / 1e9;
        if (!isDone) {
            System.err.printf("%d of %d events were handled within %d s%n", done.get(), events, PATIENCE_S);
            System.exit(1);
        }
        processor.closeDontDrainFirst();
        return seconds;
    }

    private static void work(long ms) {
        if (ms > 0) {
            try {
                Thread.sleep(ms);
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    private static Properties settings(String brokers, String group) {
        var settings = new Properties();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(ConsumerConfig.GROUP_ID_CONFIG, group);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        // It commits by itself, and refuses a consumer that does, too.
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");
        settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
        settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
        return settings;
    }

    private static double cpuSeconds() {
        var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        return system.getProcessCpuTime() / 1e9;
    }
}

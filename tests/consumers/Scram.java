import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;

/** Gives a user of a broker a password for SCRAM-SHA-512. Arguments: brokers, user, password. */
final class Scram {
    public static void main(String[] arguments) throws Exception {
        ScramCredentialInfo iterations = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            admin.alterUserScramCredentials(
                List.of(new UserScramCredentialUpsertion(arguments[1], iterations, arguments[2]))).all().get();
        }
    }
}

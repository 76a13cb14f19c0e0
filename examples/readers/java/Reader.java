// SPDX-License-Identifier: Apache-2.0

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.function.ToIntFunction;

/**
 * Reads WeChat's access token from a mounted Secret, anew for each call. It needs Java 17:
 *
 * <pre>java Reader.java /var/run/wechat</pre>
 *
 * Each line on standard input stands for one call of WeChat's API. It has the errcodes that WeChat answers, 0 for success.
 */
public final class Reader {

    /** A token and what belongs to it. Do not keep it for longer than a minute, and do not log its value. */
    record Token(String value, String expiresAt, String appID) {
        @Override
        public String toString() {
            return "Token[expiresAt=" + expiresAt + ", appID=" + appID + "]";
        }
    }

    // docs:start

    /**
     * Reads token and expiry from one snapshot of the volume. The kubelet replaces the folder behind the link ..data as a
     * whole, so the link is resolved once. A folder that vanishes meanwhile has a successor.
     */
    static Token readToken(Path dir) throws IOException {
        Path link = dir.resolve("..data");
        while (true) {
            Path snapshot;
            try {
                snapshot = Files.readSymbolicLink(link);
            } catch (IOException e) {
                throw new IOException(dir + " is not a mounted Secret; mount the whole volume, without subPath", e);
            }
            try {
                Path folder = dir.resolve(snapshot);
                return new Token(
                    Files.readString(folder.resolve("access_token")),
                    Files.readString(folder.resolve("expires_at")),
                    Files.readString(folder.resolve("app_id")));
            } catch (NoSuchFileException e) {
                if (Files.readSymbolicLink(link).equals(snapshot)) {
                    throw e; // the file is not in the Secret
                }
            }
        }
    }

    /**
     * Calls WeChat with the current token. When WeChat does not accept it any more, a newer one is in the volume, or will be
     * soon: it reads again and repeats the call once. It never fetches a token.
     */
    static int withToken(Path dir, ToIntFunction<Token> call) throws IOException {
        int errcode = call.applyAsInt(readToken(dir));
        switch (errcode) {
            case 40001, 40014, 42001:
                return call.applyAsInt(readToken(dir));
            default:
                return errcode;
        }
    }

    // docs:end

    /** Answers each call with the errcodes that it was given, and remembers the token that was used last. */
    private static final class Answers implements ToIntFunction<Token> {
        private final String[] errcodes;
        private int calls;
        private Token used;

        Answers(String line) {
            errcodes = line.trim().split("\\s+");
        }

        @Override
        public int applyAsInt(Token token) {
            used = token;
            return Integer.parseInt(errcodes[calls++]);
        }
    }

    public static void main(String[] args) throws IOException, GeneralSecurityException {
        Path dir = Path.of(args.length > 0 ? args[0] : "/var/run/wechat");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Answers answers = new Answers(line);
            int errcode = withToken(dir, answers);
            // It prints the fingerprint of the token, never the token.
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(answers.used.value().getBytes(StandardCharsets.UTF_8));
            System.out.printf("{\"fingerprint\":\"%s\",\"expires_at\":\"%s\",\"app_id\":\"%s\",\"calls\":%d,\"errcode\":%d}%n",
                HexFormat.of().formatHex(sum, 0, 8), answers.used.expiresAt(), answers.used.appID(), answers.calls, errcode);
            System.out.flush();
        }
    }
}

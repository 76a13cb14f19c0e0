// SPDX-License-Identifier: Apache-2.0

// docs/sdk.md says what of this was compiled and run.

// docs:start
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import me.chanjar.weixin.common.enums.TicketType;
import me.chanjar.weixin.mp.config.impl.WxMpDefaultConfigImpl;

/**
 * Takes token and tickets from a mounted Secret. WxJava fetches a token when isAccessTokenExpired is true, so it never is.
 *
 * <p>At 40001, 40014 and 42001 WxJava calls expireAccessToken, asks getAccessToken again and repeats the call once. If WeChat
 * refuses that token too, it throws a WxErrorException.
 */
public class MountedTokenConfig extends WxMpDefaultConfigImpl {
    private final String directory;

    /** Only logins need the AppSecret. It may be empty. */
    public MountedTokenConfig(Path directory, String appSecret) {
        this.directory = directory.toString();
        setAppId(read("app_id"));
        setSecret(appSecret);
    }

    @Override
    public String getAccessToken() {
        return read("access_token");
    }

    @Override
    public boolean isAccessTokenExpired() {
        return false;
    }

    @Override
    public void expireAccessToken() {
        // The next call reads the file again, as each call does.
    }

    @Override
    public String getTicket(TicketType type) {
        return read(type.getCode() + "_ticket");
    }

    @Override
    public boolean isTicketExpired(TicketType type) {
        return false;
    }

    @Override
    public void expireTicket(TicketType type) {
        // As with the token.
    }

    /**
     * Reads a file by its path, because the kubelet replaces the folder that holds it. If that happens between two steps of
     * the path, the second attempt finds the new one.
     */
    private String read(String name) {
        Path file = Path.of(directory, name);
        try {
            return Files.readString(file);
        } catch (IOException first) {
            try {
                return Files.readString(file);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }
}
// docs:end

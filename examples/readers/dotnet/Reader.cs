// SPDX-License-Identifier: Apache-2.0

// Reads WeChat's access token from a mounted Secret, anew for each call. It needs .NET 8 or later:
//
//   dotnet run --project examples/readers/dotnet -- /var/run/wechat
//
// Each line on standard input stands for one call of WeChat's API. It has the errcodes that WeChat answers, 0 for success.

using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

var dir = args.Length > 0 ? args[0] : "/var/run/wechat";
while (Console.ReadLine() is { } line)
{
    var answers = line.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse).ToArray();
    var calls = 0;
    Token? used = null;
    var errcode = MountedToken.With(dir, token =>
    {
        used = token;
        return answers[calls++];
    });
    // It prints the fingerprint of the token, never the token.
    var sum = SHA256.HashData(Encoding.UTF8.GetBytes(used!.Value));
    Console.WriteLine(JsonSerializer.Serialize(new
    {
        fingerprint = Convert.ToHexString(sum, 0, 8).ToLowerInvariant(),
        expires_at = used.ExpiresAt,
        app_id = used.AppID,
        calls,
        errcode,
    }));
}

/// <summary>A token and what belongs to it. Do not keep it for longer than a minute, and do not log its value.</summary>
internal sealed record Token(string Value, string ExpiresAt, string AppID)
{
    public override string ToString() => $"Token {{ ExpiresAt = {ExpiresAt}, AppID = {AppID} }}";
}

internal static class MountedToken
{
    // docs:start

    /// <summary>
    /// Reads token and expiry from one snapshot of the volume. The kubelet replaces the folder behind the link ..data as a
    /// whole, so the link is resolved once. A folder that vanishes meanwhile has a successor.
    /// </summary>
    public static Token Read(string dir)
    {
        while (true)
        {
            var snapshot = Snapshot(dir) ?? throw new IOException(
                $"{dir} is not a mounted Secret; mount the whole volume, without subPath");
            string ReadFile(string name) => File.ReadAllText(Path.Combine(dir, snapshot, name));
            try
            {
                return new Token(ReadFile("access_token"), ReadFile("expires_at"), ReadFile("app_id"));
            }
            catch (IOException e) when (e is FileNotFoundException or DirectoryNotFoundException)
            {
                if (Snapshot(dir) == snapshot)
                {
                    throw; // the file is not in the Secret
                }
            }
        }
    }

    private static string? Snapshot(string dir) => new DirectoryInfo(Path.Combine(dir, "..data")).LinkTarget;

    /// <summary>
    /// Calls WeChat with the current token. When WeChat does not accept it any more, a newer one is in the volume, or will be
    /// soon: it reads again and repeats the call once. It never fetches a token.
    /// </summary>
    public static int With(string dir, Func<Token, int> call)
    {
        var errcode = call(Read(dir));
        return errcode is 40001 or 40014 or 42001 ? call(Read(dir)) : errcode;
    }

    // docs:end
}

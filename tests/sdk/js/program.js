// What the programs of both JavaScript SDKs share: `node stream3.js ADDRESS FEED CHANNELS`.
//
// ADDRESS is the node's, such as http://127.0.0.1:8080. CHANNELS is the first subscription, such
// as {"trades":["AAPL"]}. Without a FEED there is no stream. The key is in APCA_API_KEY_ID and APCA_API_SECRET_KEY. Each line of
// standard input is a command, each line of standard output an event; both are JSON objects. The
// end of the input is the end.
"use strict";

const readline = require("node:readline");

const [address, feed, first] = process.argv.slice(2);

function say(event, more = {}) {
    process.stdout.write(JSON.stringify({ event, ...more }) + "\n");
}

// Runs `commands[do](command)` for each line.
function obey(commands) {
    const lines = readline.createInterface({ input: process.stdin });
    lines.on("line", async (line) => {
        const asked = JSON.parse(line);
        const question = !["subscribe", "unsubscribe"].includes(asked.do);
        try {
            const answer = await commands[asked.do](asked);
            if (question) say("answer", { answer });
        } catch (error) {
            say(question ? "answer" : "error", { error: `${error.name}: ${error.message}`, status: error.status });
        }
    });
    lines.on("close", () => process.exit(0));
}

module.exports = {
    address,
    feed,
    channels: JSON.parse(first),
    credentials: { keyId: process.env.APCA_API_KEY_ID, secret: process.env.APCA_API_SECRET_KEY },
    say,
    obey,
};

// SPDX-License-Identifier: BSD-2-Clause
// An HTTP server and a client: node.js serve PORT | ask PORT REQUESTS.
// The server echoes what is posted, with a digest; the client prints how many came back right.
"use strict";
const crypto = require("node:crypto");
const http = require("node:http");

const HOST = "127.0.0.1";
const digest = (data) => crypto.createHash("sha256").update(data).digest("hex");

function serve(port) {
	http.createServer((request, response) => {
		const parts = [];
		request.on("data", (part) => parts.push(part));
		request.on("end", () => {
			const body = Buffer.concat(parts);
			response.setHeader("x-digest", digest(body));
			response.end(body);
		});
	}).listen(port, HOST, 512);
}

function post(agent, port, body) {
	return new Promise((resolve, reject) => {
		const request = http.request({ host: HOST, port, method: "POST", agent }, (response) => {
			const parts = [];
			response.on("data", (part) => parts.push(part));
			response.on("end", () => resolve({ headers: response.headers, body: Buffer.concat(parts) }));
		});
		request.on("error", reject);
		request.end(body);
	});
}

async function ask(port, requests) {
	const kept = new http.Agent({ keepAlive: true, maxSockets: 8 }), each = new http.Agent({ maxSockets: 8 });
	let right = 0;
	await Promise.all(Array.from({ length: requests }, async (_, i) => {
		const body = crypto.createHash("shake256", { outputLength: 1 + (i * 7919) % 100000 }).update(String(i)).digest();
		const answer = await post(i % 2 ? kept : each, port, body);
		right += answer.headers["x-digest"] === digest(body) && answer.body.equals(body);
	}));
	kept.destroy();
	console.log(`${right} right`);
}

const [what, port, number] = process.argv.slice(2);
(what === "serve" ? serve : ask)(Number(port), Number(number));

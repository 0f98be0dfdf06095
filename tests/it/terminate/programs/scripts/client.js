// Users of an application, with the standard library: each has cookies of its own, and all share an agent that keeps
// a few connections.
//
// usage: client.js PORT CA USERS REQUESTS
// Prints for each user who has served it, which must be one. Counts must rise by one each time.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const https = require('node:https');

const [port, ca, users, requests] = process.argv.slice(2);
const agent = new https.Agent({ keepAlive: true, maxSockets: 3, ca: fs.readFileSync(ca) });
const sockets = new Set();

function ask(user, path) {
  return new Promise((resolve, reject) => {
    const headers = { Host: 'a.test' };
    if (user.size > 0) headers.Cookie = [...user].map((pair) => pair.join('=')).join('; ');
    const options = { agent, host: '127.0.0.1', port, path, servername: 'a.test', headers };
    const request = https.get(options, (response) => {
      let text = '';
      response.on('data', (piece) => { text += piece; });
      response.on('error', reject);
      response.on('end', () => {
        assert.strictEqual(response.statusCode, 200, text);
        for (const line of response.headers['set-cookie'] ?? []) user.set(...line.split(';')[0].split('='));
        resolve(text);
      });
    });
    request.on('socket', (socket) => sockets.add(socket));
    request.on('error', reject);
  });
}

async function use() {
  const user = new Map();
  const name = await ask(user, '/login');
  for (let count = 1; count <= Number(requests); count += 1) {
    assert.strictEqual(await ask(user, '/count'), `${name} ${count}`);
  }
  return name;
}

Promise.all(Array.from({ length: Number(users) }, use)).then((names) => {
  assert.strictEqual(sockets.size, 3, 'connections were kept');
  console.log(names.join(' '));
  agent.destroy();
}).catch((error) => {
  console.error(error);
  process.exit(1);
});

// An application that keeps its sessions in its own memory: whoever comes with one it does not know is told so.
//
// usage: application.js ADDRESS PORT NAME
'use strict';

const http = require('node:http');

const [address, port, name] = process.argv.slice(2);
const sessions = new Map();

http.createServer((request, response) => {
  const cookie = /(?:^|; *)SID=([^;]*)/.exec(request.headers.cookie ?? '');
  let session = cookie?.[1];
  if (request.url === '/login') {
    session = `${name}-${sessions.size + 1}`;
    sessions.set(session, 0);
    response.setHeader('Set-Cookie', `SID=${session}; Path=/; HttpOnly`);
    response.end(name);
  } else if (!sessions.has(session)) {
    response.statusCode = 403;
    response.end(`${name} does not know ${session}`);
  } else {
    sessions.set(session, sessions.get(session) + 1);
    // In pieces: the length is not known when the head is sent.
    response.write(`${name} `);
    response.end(`${sessions.get(session)}`);
  }
}).listen(Number(port), address);

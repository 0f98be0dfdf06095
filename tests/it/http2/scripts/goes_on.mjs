// Requests of Node's HTTP/2 client, in groups, over a new connection as soon as the last one says GOAWAY; says as JSON
// how many were served, and every error. Arguments: URL, file of authorities, number of requests.
import http2 from 'node:http2';
import { readFileSync } from 'node:fs';

const [base, ca, count] = process.argv.slice(2);
const url = new URL(base);
const errors = [];
let connections = 0;
let session;

function connected() {
  if (session && !session.closed && !session.destroyed && !session.leaves) return session;
  connections += 1;
  const own = http2.connect(`https://127.0.0.1:${url.port}`, { ca: readFileSync(ca), servername: url.hostname });
  own.on('goaway', (code) => { own.leaves = true; if (code !== 0) errors.push(`GOAWAY ${code}`); });
  own.on('error', (error) => errors.push(String(error)));
  session = own;
  return own;
}

function ask(path) {
  return new Promise((resolve) => {
    const stream = connected().request({ ':path': path, ':authority': url.host });
    let status;
    let refused = false;
    stream.on('response', (fields) => { status = fields[':status']; });
    // What was refused before anything came of it may be sent again.
    stream.on('error', (error) => { refused = stream.rstCode === 7; if (!refused) errors.push(`${path}: ${error}`); });
    stream.on('close', () => resolve(refused ? ask(path) : status));
    stream.resume();
  });
}

let served = 0;
for (let at = 0; at < Number(count); at += 5) {
  const statuses = await Promise.all(Array.from({ length: 5 }, (_, n) => ask(`/${at + n}`)));
  served += statuses.filter((status) => status === 200).length;
}
session.close();
console.log(JSON.stringify({ served, connections, errors }));

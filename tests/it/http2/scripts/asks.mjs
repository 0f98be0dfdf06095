// Requests of Node's HTTP/2 client over one connection; says as JSON what came. Arguments: URL, file of authorities.
import http2 from 'node:http2';
import { readFileSync } from 'node:fs';

const [base, ca] = process.argv.slice(2);
const url = new URL(base);
const session = http2.connect(`https://127.0.0.1:${url.port}`, { ca: readFileSync(ca), servername: url.hostname });
session.on('error', (error) => { console.error(error); process.exit(1); });

function ask(path, { method = 'GET', body, trailers, fields = {} } = {}) {
  return new Promise((resolve, reject) => {
    const head = { ':method': method, ':path': path, ':authority': url.host, ...fields };
    const stream = session.request(head, { endStream: body === undefined, waitForTrailers: trailers !== undefined });
    const reply = { early: [], trailers: {}, body: Buffer.alloc(0) };
    const pieces = [];
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    stream.on('headers', (fields) => reply.early.push(fields[':status']));
    stream.on('response', (fields) => { reply.fields = fields; reply.status = fields[':status']; });
    stream.on('trailers', (fields) => { reply.trailers = fields; });
    stream.on('data', (piece) => pieces.push(piece));
    stream.on('error', reject);
    stream.on('end', () => { reply.body = Buffer.concat(pieces); });
    stream.on('close', () => resolve(reply));
    if (body !== undefined) stream.end(body);
  });
}

const replies = await Promise.all(Array.from({ length: 40 }, (_, n) => ask(`/${n}`)));
const upload = await ask('/up', { method: 'POST', body: Buffer.alloc(1 << 20, 7), trailers: { 'x-sum': '9' } });
const trailing = await ask('/trailers', { fields: { te: 'trailers' } });
const early = await ask('/early');
const head = await ask('/down/length/5', { method: 'HEAD' });
const down = await ask('/down/chunked/5000000');
const cut = await ask('/cut/length/100').then(() => false, (error) => error.code === 'ERR_HTTP2_STREAM_ERROR');
const after = await ask('/after');
session.close();
console.log(JSON.stringify({
  statuses: replies.map((reply) => reply.status),
  cookies: new Set(replies.map((reply) => String(reply.fields['set-cookie']).split(';')[0])).size,
  upload: upload.body.toString(),
  trailers: trailing.trailers['x-sum'],
  early: early.early[0],
  head: head.fields['content-length'],
  down: down.body.length,
  cut,
  after: after.status,
}));

// chokidar.js FOLDER: what chokidar tells of it, a line for each event: vite and nodemon watch by it.
const chokidar = require('chokidar');
const watcher = chokidar.watch(process.argv[2], { ignoreInitial: true });
watcher.on('ready', () => console.log('ready'));
watcher.on('all', (event, path) => console.log(`${event} ${path}`));

// Loaded before a script (node --import): packages come from where tests/clients/install put them.
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'

const installed = pathToFileURL(`${process.env.TW_TEST_TOOLS}/`).href

registerHooks({
  resolve(name, context, next) {
    const ours = context.parentURL?.startsWith('file:') && !context.parentURL.includes('/node_modules/')
    const bare = !/^(\.|\/|[a-z]+:)/.test(name)
    return next(name, ours && bare ? { ...context, parentURL: installed } : context)
  },
})

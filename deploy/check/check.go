// Package check holds the files of deploy/, the Dockerfile and docker-compose.yml to what they speak of: options, metrics, pages,
// and the programs that read them. It needs no engine, cluster or network, and is a module of its own for what it links. `make
// check-deploy` runs it with what else there is to check.
package check
